"""Kafka's wire, sans-IO: messages, codec, framing."""

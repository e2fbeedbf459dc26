"""Kafka's log over streams: offsets, producers, epochs, time lookup, retention."""

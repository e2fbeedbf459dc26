"""Definitions of the configs of brokers, topics and tables."""

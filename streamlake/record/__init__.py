"""Kafka record batches: scan, validate, patch, encode; and, apart, decode to columns."""

"""Avro into columns."""

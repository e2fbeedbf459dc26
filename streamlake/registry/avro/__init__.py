"""Avro in the schema registry: parsing, types and compatibility."""

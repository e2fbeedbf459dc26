"""Protobuf schemas: parsing, printing, compatibility."""

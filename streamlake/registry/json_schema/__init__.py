"""JSON Schemas: parsing, references, compatibility."""

"""Record formats: bytes into columns."""

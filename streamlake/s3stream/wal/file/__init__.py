"""A write-ahead log in files."""

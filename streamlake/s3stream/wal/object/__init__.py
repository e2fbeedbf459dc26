"""A write-ahead log in an object store."""

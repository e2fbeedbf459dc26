"""Objects that hold records: format, index, reads and garbage collection."""

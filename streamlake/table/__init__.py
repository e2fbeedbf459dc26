"""Topic to Iceberg table, continuously and exactly once."""

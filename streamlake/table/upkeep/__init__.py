"""Maintenance of tables: merges, expiry and sweeps."""

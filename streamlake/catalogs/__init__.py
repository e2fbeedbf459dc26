"""Iceberg catalogs by kind: configuration, loading, and a FileIO for local disks that survives a power cut."""

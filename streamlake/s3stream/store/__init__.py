"""Object stores: one port, local files and buckets."""

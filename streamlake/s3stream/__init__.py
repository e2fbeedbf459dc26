"""Streams of batches on object storage: WAL, caches, objects, recovery, garbage collection. Knows nothing of Kafka."""

"""StreamLake: Kafka topics that are Apache Iceberg tables, on object storage."""

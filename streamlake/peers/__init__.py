"""Raw Kafka-wire clients between our own processes."""

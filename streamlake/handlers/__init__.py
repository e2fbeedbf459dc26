"""Wire to domain and back: one module per Kafka API, no state."""

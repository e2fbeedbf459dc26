"""A Confluent-compatible schema registry in the broker: Avro schemas under subjects, with compatibility rules."""

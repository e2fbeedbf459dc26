"""A Confluent-compatible schema registry in the broker: schemas under subjects, with compatibility rules."""

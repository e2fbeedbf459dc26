"""Kafka's own topics: tests/handlers/test_create_topics.py and test_metadata.py ask for them over the wire."""

from streamlake.handlers.internal_topics import RESERVED


def test_every_refusal_names_its_topic() -> None:
    assert all(name.startswith("__") and name in reserved.message for name, reserved in RESERVED.items())

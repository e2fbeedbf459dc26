"""Avro as producers write it: Confluent's serializer against the server's own registry."""

import json
from typing import Any

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from support.server import Server


def record(*fields: tuple[Any, ...], name: str = "Row") -> dict[str, Any]:
    """A schema; a field is (name, type) or (name, type, default)."""
    made = [{"name": f[0], "type": f[1], **({"default": f[2]} if len(f) > 2 else {})} for f in fields]
    return {"type": "record", "name": name, "fields": made}


class Subject:
    """Serializes values of one topic; each schema is registered when it is first used."""

    def __init__(self, server: Server, topic: str) -> None:
        self._topic = topic
        self._client = SchemaRegistryClient({"url": server.http})
        self._serializers: dict[str, AvroSerializer] = {}

    def value(self, schema: dict[str, Any], row: dict[str, Any]) -> bytes:
        text = json.dumps(schema)
        if text not in self._serializers:
            self._serializers[text] = AvroSerializer(self._client, text)
        return self._serializers[text](row, SerializationContext(self._topic, MessageField.VALUE))

    def register_elsewhere(self, schema: dict[str, Any], subject: str) -> int:
        """The id of a schema that does not have to go with the topic's others."""
        return self._client.register_schema(subject, Schema(json.dumps(schema), "AVRO"))

"""Changes as Debezium sends them, from unmodified producers to the table, read by DuckDB and PyIceberg."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from support import lake
from support.server import Server

NewTopicName = Callable[[], str]
TS_MS = 1_700_000_000_123
AT = datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC)
OLD, NEW = {"id": 1, "name": "a"}, {"id": 1, "name": "b"}

VALUE = {"type": "record", "name": "Value", "fields": [
    {"name": "id", "type": "int"}, {"name": "name", "type": ["null", "string"], "default": None},
]}  # fmt: skip
SOURCE = {"type": "record", "name": "Source", "namespace": "io.debezium.connector.postgresql", "fields": [
    {"name": "db", "type": "string"}, {"name": "lsn", "type": ["null", "long"], "default": None},
]}  # fmt: skip
ENVELOPE = {"type": "record", "name": "Envelope", "namespace": "pg.public.orders", "fields": [
    {"name": "before", "type": ["null", VALUE], "default": None},
    {"name": "after", "type": ["null", "Value"], "default": None},
    {"name": "source", "type": SOURCE},
    {"name": "transaction", "type": ["null", {"type": "record", "name": "block", "fields": [
        {"name": "id", "type": "string"}]}], "default": None},
    {"name": "op", "type": "string"},
    {"name": "ts_ms", "type": ["null", "long"], "default": None},
]}  # fmt: skip
IMAGE = {"oneOf": [{"type": "null"}, {"type": "object", "title": "Value", "properties": {
    "id": {"type": "integer", "connect.type": "int32"}, "name": {"oneOf": [{"type": "null"}, {"type": "string"}]},
}}]}  # fmt: skip
JSON_SCHEMA = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Envelope", "type": "object", "properties": {
    "before": IMAGE, "after": IMAGE, "op": {"type": "string"}, "ts_ms": {"oneOf": [{"type": "null"}, {"type": "integer"}]},
    "source": {"type": "object", "properties": {"db": {"type": "string"}, "lsn": {"type": "integer"}}},
}}  # fmt: skip


def change(op: str, before: Any, after: Any) -> dict[str, Any]:
    return {"before": before, "after": after, "source": {"db": "shop", "lsn": 7}, "op": op, "ts_ms": TS_MS}


CHANGES = [change("r", None, OLD), change("u", OLD, NEW), change("d", NEW, None), None, change("t", None, None)]


def serialized(server: Server, topic: str, kind: str) -> list[bytes | None]:
    registry = SchemaRegistryClient({"url": server.http})
    serialize: Any = {
        "avro": lambda: AvroSerializer(registry, json.dumps(ENVELOPE)),
        "json_schema": lambda: JSONSerializer(json.dumps(JSON_SCHEMA), registry),
        "json": lambda: lambda value, _: json.dumps(value).encode(),
        "json_with_schema": lambda: (
            lambda value, _: json.dumps({"schema": {"type": "struct"}, "payload": value}).encode()
        ),
    }[kind]()
    context = SerializationContext(topic, MessageField.VALUE)
    return [None if value is None else serialize(value, context) for value in CHANGES]


@pytest.mark.parametrize("kind", ["avro", "json_schema", "json", "json_with_schema"])
def test_changes_are_rows(server: Server, topic: NewTopicName, kind: str) -> None:
    convert = "json" if kind in ("json", "json_with_schema") else "by_schema_id"
    configs = {"transform_value_type": "flatten_debezium", "partition_by": "[day(_op_ts)]"}
    name = lake.create_topic(server, topic(), convert_value_type=convert, **configs)
    lake.produce(server, name, serialized(server, name, kind))
    server.wait_for_table(name, 3, 1)
    lsn = "_source.lsn" if convert == "by_schema_id" else "json_extract(_source, '$.lsn')::BIGINT"
    statement = f'SELECT id, name, _op, epoch_ms(_op_ts), {lsn}, _kafka.offset FROM "{name}" ORDER BY _kafka.offset'
    assert lake.query(server, statement) == [
        (1, "a", "r", TS_MS, 7, 0), (1, "b", "u", TS_MS, 7, 1), (1, "b", "d", TS_MS, 7, 2),
    ]  # fmt: skip
    table = lake.load_table(server, name)
    rows = table.scan("_op = 'd'").to_arrow().to_pylist()
    assert [(row["id"], row["name"], row["_op_ts"]) for row in rows] == [(1, "b", AT)]
    assert [field.name for field in table.spec().fields] == ["_op_ts_day"]
    (dead,) = lake.query(server, f'SELECT reason, error, "offset" FROM "{name}__dlq"')
    assert dead == ("invalid_envelope", "not an envelope of Debezium: op 't' is not a change of one row", 4)
    lake.produce(server, name, [None, *serialized(server, name, kind)[:1]])
    server.wait_for_table(name, 4, 1)
    newest = "row_number() OVER (PARTITION BY id ORDER BY _kafka.offset DESC) = 1 AND _op <> 'd'"
    assert lake.query(server, f'SELECT name, _op FROM "{name}" QUALIFY {newest}') == [("a", "r")]

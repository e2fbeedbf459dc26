"""JSON from unmodified producers to the table, with a schema and without, read by DuckDB and PyIceberg."""

import json
from collections.abc import Callable
from typing import Any

from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from support import json_cases, lake
from support.server import Server

NewTopicName = Callable[[], str]
BY_ID = {"convert_value_type": "by_schema_id", "transform_value_type": "flatten"}
PLAIN = {"convert_value_type": "json", "transform_value_type": "flatten"}


def serialized(server: Server, topic: str, schema: Any, *values: Any) -> list[bytes]:
    draft = "http://json-schema.org/draft-07/schema#"
    serialize = JSONSerializer(
        json.dumps({"$schema": draft, "title": "Row", **schema}), SchemaRegistryClient({"url": server.http})
    )
    found = [serialize(value, SerializationContext(topic, MessageField.VALUE)) for value in values]
    assert all(data is not None for data in found)
    return [data for data in found if data is not None]


def compact(value: Any) -> Any:
    """JSON text in its shortest form: how it is written is the serializer's choice."""
    if isinstance(value, dict):
        return {key: compact(item) for key, item in value.items()}
    if isinstance(value, str) and value[0] in "{[":
        return json.dumps(json.loads(value), separators=(",", ":"))
    return value


def test_values_of_every_kind_by_schema_id(server: Server, topic: NewTopicName) -> None:
    """One of each line of docs/guides/types.md."""
    name = lake.create_topic(server, topic(), **BY_ID)
    value = {key: found for key, found in json_cases.value().items() if found is not None}
    (data,) = serialized(server, name, json_cases.schema(), value)
    lake.produce(server, name, [data, data[:5] + b'{"f1":"x"}'])
    server.wait_for_table(name, 1, 1)
    cases = {f"f{n}": case for n, case in enumerate(json_cases.CASES) if case.column}
    (row,) = lake.query(server, f'SELECT {", ".join(cases)} FROM "{name}"')
    wanted = {key: compact(case.shown) for key, case in cases.items()}
    assert {key: compact(found) for key, found in zip(cases, row, strict=True)} == wanted
    table = lake.load_table(server, name)
    (found,) = table.scan(selected_fields=tuple(cases)).to_arrow().to_pylist()
    maps = {key for key, case in cases.items() if case.column.startswith("map")}
    assert {key: dict(value) if key in maps else compact(value) for key, value in found.items()} == wanted
    (dead,) = lake.query(server, f'SELECT reason, error FROM "{name}__dlq"')
    assert dead[0] == "invalid_value" and "f1 is '\"x\"', not an integer" in dead[1]


def test_a_schema_that_evolves(server: Server, topic: NewTopicName) -> None:
    name = lake.create_topic(server, topic(), **BY_ID)
    old = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
    new = {**old, "properties": {**old["properties"], "b": {"type": "string"}}}  # type: ignore[dict-item]
    lake.produce(server, name, serialized(server, name, old, {"a": 1}))
    server.wait_for_table(name, 1)
    lake.produce(server, name, serialized(server, name, new, {"a": 2, "b": "x"}))
    server.wait_for_table(name, 2)
    assert lake.query(server, f'SELECT a, b FROM "{name}" ORDER BY a') == [(1, None), (2, "x")]


def test_plain_values_of_every_kind(server: Server, topic: NewTopicName) -> None:
    name = lake.create_topic(server, topic(), **PLAIN)
    lake.produce(server, name, [json.dumps(json_cases.plain_value()).encode()])
    server.wait_for_table(name, 1)
    cases = {f"p{n}": case for n, case in enumerate(json_cases.PLAIN) if case.column}
    (row,) = lake.query(server, f'SELECT {", ".join(cases)}, _rest FROM "{name}"')
    assert dict(zip(cases, row, strict=False)) == {key: case.shown for key, case in cases.items()}
    others = {
        f"p{n}": case.value for n, case in enumerate(json_cases.PLAIN) if not case.column and case.value is not None
    }
    assert json.loads(row[-1]) == others
    assert lake.load_table(server, name).scan().to_arrow()["_rest"].to_pylist() == [row[-1]]


def test_plain_json_grows_and_loses_nothing(server: Server, topic: NewTopicName) -> None:
    name = lake.create_topic(server, topic(), **PLAIN, json_columns_max="4")
    first = [b'{"id":1,"price":2}', b"null", b"{} {}", b'{"id":2,"price":"free","at":{"x":1}}', b"", b'{"id":NaN}']
    lake.produce(server, name, first)
    server.wait_for_table(name, 2, 4)
    lake.produce(server, name, [b'{"id":3,"price":2.5,"at":{"x":1,"y":2},"new":[1]}', b'\xef\xbb\xbf{"id":4}'])
    server.wait_for_table(name, 4, 4)
    rows = lake.query(server, f'SELECT id, price, "at", _rest FROM "{name}" ORDER BY id')
    assert rows == [
        (1, 2, None, None),
        (2, None, {"x": 1}, '{"price":"free"}'),
        (3, None, {"x": 1}, '{"price":2.5,"at":{"y":2},"new":[1]}'),
        (4, None, None, None),
    ]
    assert {reason for (reason,) in lake.query(server, f'SELECT reason FROM "{name}__dlq"')} == {"invalid_value"}


def test_plain_json_in_one_column(server: Server, topic: NewTopicName) -> None:
    name = lake.create_topic(server, topic(), convert_value_type="json")
    lake.produce(server, name, [b'{"a":{"b":1}}'])
    server.wait_for_table(name, 1)
    lake.produce(server, name, [b'{"a":{"b":"x","c":true}}', None])
    server.wait_for_table(name, 3)
    rows = lake.query(server, f'SELECT value FROM "{name}" ORDER BY _kafka."offset"')
    assert rows == [
        ({"a": {"b": 1, "c": None}, "_rest": None},),
        ({"a": {"b": None, "c": True}, "_rest": '{"a":{"b":"x"}}'},),
        (None,),
    ]

"""Protobuf from an unmodified serializer to the table, read by DuckDB and PyIceberg."""

import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal

from support import lake
from support.protobuf import Classes, Messages
from support.server import Server

NewTopicName = Callable[[], str]
PROTOBUF = {"convert_value_type": "by_schema_id", "transform_value_type": "flatten"}

MONEY = 'syntax = "proto3"; package common; message Money { int64 units = 1; uint64 huge = 2; }'
ORDER = """
syntax = "proto3"; package shop;
import "common/money.proto"; import "google/protobuf/timestamp.proto"; import "google/protobuf/struct.proto";
import "google/protobuf/wrappers.proto";
message Order {
  int64 id = 1;
  optional string note = 2;
  common.Money price = 3;
  google.protobuf.Timestamp ts = 4;
  repeated string tags = 5;
  map<string, int32> counts = 6;
  enum State { UNKNOWN = 0; OPEN = 1; }
  State state = 7;
  oneof by { string card = 8; uint32 cash = 9; }
  google.protobuf.Struct more = 10;
  google.protobuf.DoubleValue weight = 11;
}
message Other { string text = 1; Order order = 2; }
"""
TS = dt.datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=dt.UTC)


def test_messages_are_rows(server: Server, topic: NewTopicName) -> None:
    classes = Classes({"common/money.proto": MONEY, "order.proto": ORDER})
    name = lake.create_topic(server, topic(), **PROTOBUF)
    messages = Messages(server, name)
    full = classes["shop.Order"](id=1, note="", price={"units": 5, "huge": 2**64 - 1}, tags=["a", "b"], cash=2**32 - 1)
    full.counts["x"] = -7
    full.state = 9
    full.ts.FromDatetime(TS)
    full.more.update({"b": [1, None], "a": "ünï"})
    full.weight.value = 0
    empty = classes["shop.Order"](state=1)
    lake.produce(server, name, [messages.value(full), messages.value(empty), b"\0\0\0\0\1\0\xff"])
    server.wait_for_table(name, 2, 1)
    rows = lake.query(
        server,
        "SELECT id, note, price.units, price.huge, ts, tags, counts, state, card, cash, more, weight "
        f'FROM "{name}" ORDER BY _kafka."offset"',
    )
    assert rows[0][:10] == (1, "", 5, Decimal(2**64 - 1), TS, ["a", "b"], {"x": -7}, "9", None, 2**32 - 1)
    assert (json.loads(rows[0][10]), rows[0][11]) == ({"a": "ünï", "b": [1, None]}, 0.0)
    assert rows[1] == (0, None, None, None, None, [], {}, "OPEN", None, None, None, None)
    table = lake.load_table(server, name)
    assert table.scan().to_arrow().num_rows == 2
    assert str(table.schema().find_field("price.huge").field_type) == "decimal(20, 0)"


def test_a_renamed_field_renames_its_column_and_an_old_writer_does_not_rename_it_back(
    server: Server, topic: NewTopicName
) -> None:
    name = lake.create_topic(server, topic(), **PROTOBUF)
    messages = Messages(server, name)
    old = Classes({"row.proto": 'syntax = "proto3"; message Row { int32 a = 1; string b = 2; }'})
    new = Classes({"row.proto": 'syntax = "proto3"; message Row { int64 renamed = 1; string b = 2; bool more = 3; }'})
    lake.produce(server, name, [messages.value(old["Row"](a=1, b="x"))])
    server.wait_for_table(name, 1)
    lake.produce(server, name, [messages.value(new["Row"](renamed=2**40, more=True))])
    lake.produce(server, name, [messages.value(old["Row"](a=3))])
    server.wait_for_table(name, 3)
    rows = lake.query(server, f'SELECT renamed, b, more FROM "{name}" ORDER BY _kafka."offset"')
    assert rows == [(1, "x", None), (2**40, "", True), (3, "", None)]


def test_messages_of_several_types_in_one_topic(server: Server, topic: NewTopicName) -> None:
    """Fields are known by their numbers: types that use a number differently do not share a table."""
    classes = Classes({"common/money.proto": MONEY, "order.proto": ORDER})
    name = lake.create_topic(server, topic(), **PROTOBUF)
    messages = Messages(server, name)
    other = classes["shop.Other"](text="x", order={"id": 5})
    lake.produce(server, name, [messages.value(classes["shop.Order"](id=7)), messages.value(other)])
    server.wait_for_table(name, 1, 1)
    (dead,) = lake.query(server, f'SELECT reason, error FROM "{name}__dlq"')
    assert dead[0] == "incompatible_schema"

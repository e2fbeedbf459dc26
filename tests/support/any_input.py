"""Configs of a table topic and records of any kind, for tests that ask that nothing stops a table."""

import random
from dataclasses import dataclass
from typing import Any

from hypothesis import Phase
from hypothesis import strategies as st
from support.avro_random import RandomAvro

from streamlake.record.decode import Record

TABLE = "streamlake.table."
FORMATS = ("raw", "string", "by_schema_id")
COLUMNS = [
    "f0", "F1", "f0.f1", "f2.f0", "ts_day", "f0_day", "f0_bucket_3", "größe", "missing", "value", "value.f0", "1st",
    "_kafka", "_kafka.offset", "_kafka.timestamp", "_kafka.key", "_kafka.key.f0", "_kafka.headers", "_kafka_metadata.offset",
    "_kafka_key", "_kafka_value.f0",
]  # fmt: skip
OURS = ["_kafka.offset", "_kafka.partition", "_kafka.key"]
# Names that a table, an engine or a partition has a use for.
NAMES = [
    "f0",
    "F0",
    "f1",
    "f0_day",
    "f0_bucket_3",
    "ts_day",
    "_kafka",
    "_file",
    "value",
    "key",
    "offset",
    "_",
    "a__dlq",
]
EDGES = st.text(st.sampled_from("a\0\ud7ff\ue000\uffff\U0010ffff/%=ü"), max_size=40).map(str.encode)
BYTES = st.none() | EDGES | st.binary(max_size=30) | st.sampled_from([b"x" * 300, "ü".encode() * 3_000])
TIMES = st.sampled_from([-1, 0, 1, -2, 10**12, 253_402_300_799_999, 253_402_300_800_000, -(10**14), 2**61, -(2**61)])
HEADERS = st.lists(st.tuples(st.text(max_size=2) | st.just("\udcff"), BYTES), max_size=3)
SEARCH = (Phase.explicit, Phase.reuse, Phase.generate)  # a smaller case of a failure would take minutes to find


@st.composite
def items(draw: st.DrawFn, columns: list[str]) -> str:
    column, transform = draw(st.sampled_from(columns)), draw(st.sampled_from(["", "day", "hour", "month", "year"]))
    if draw(st.booleans()):
        return f"{draw(st.sampled_from(['bucket', 'truncate']))}({column}, {draw(st.sampled_from([1, 3, 1000]))})"
    return f"{transform}({column})" if transform else column


@st.composite
def configs(draw: st.DrawFn) -> dict[str, str]:
    given_name = st.just("") | st.text("a.-_ü1", min_size=1, max_size=6) | st.sampled_from(["x" * 249, "..", "."])
    values = {
        "enable": "true",
        "convert.value.type": draw(st.sampled_from(FORMATS)),
        "convert.key.type": draw(st.sampled_from(FORMATS)),
        "layout": draw(st.sampled_from(["streamlake", "automq"])),
        "name": draw(st.just("") | given_name),
    }
    if draw(st.booleans()):
        values["namespace"] = draw(given_name)
    if values["convert.value.type"] == "by_schema_id" and draw(st.booleans()):
        values["transform.value.type"] = "flatten"
    columns = draw(st.sampled_from([COLUMNS, COLUMNS if "transform.value.type" in values else OURS]))
    values["partition.by"] = f"[{', '.join(draw(st.lists(items(columns), max_size=3)))}]"
    return {TABLE + key: value for key, value in values.items()}


def odd_schemas(rng: random.Random, avro: RandomAvro, count: int) -> list[Any]:
    return [_renamed(avro.schema(), rng) for _ in range(count)]


def _renamed(schema: Any, rng: random.Random) -> Any:
    """The schema with other names of fields, some of them odd."""
    if isinstance(schema, list):
        return [_renamed(branch, rng) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: _renamed(value, rng) if key in ("items", "values") else value for key, value in schema.items()}
    if "fields" in schema:
        names = (
            rng.sample(NAMES, len(schema["fields"])) if rng.random() < 0.5 else [f["name"] for f in schema["fields"]]
        )
        types = [_renamed(field["type"], rng) for field in schema["fields"]]
        changed["fields"] = [{"name": name, "type": type} for name, type in zip(names, types, strict=True)]
    return changed


@dataclass
class Source:
    """What a producer of anything draws from: chance, and schemas by id."""

    draw: st.DrawFn
    avro: RandomAvro
    schemas: dict[int, Any]

    def batches(self) -> list[tuple[int, list[Record]]]:
        """Some batches of records, each with its partition of two. Offsets begin at 0."""
        return [(self.draw(st.integers(0, 1)), self._records()) for _ in range(self.draw(st.integers(1, 3)))]

    def _records(self) -> list[Record]:
        return [
            Record(offset, self.draw(TIMES), self._bytes(), self._bytes(), tuple(self.draw(HEADERS)))
            for offset in range(self.draw(st.integers(1, 4)))
        ]

    def _bytes(self) -> bytes | None:
        if self.draw(st.booleans()):
            return self.draw(BYTES)
        id = self.draw(st.sampled_from([*self.schemas, 99_999]))
        body = self.avro.value(self.schemas[id]) if id in self.schemas else b""
        return (b"\0" + id.to_bytes(4, "big") + body)[: self.draw(st.sampled_from([3, 8, 1 << 20, 1 << 20, 1 << 20]))]

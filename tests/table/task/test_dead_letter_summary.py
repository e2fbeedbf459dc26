import io
import json
from typing import Any

import fastavro
from support.table_world import BAD, World, good

from streamlake.table.formats.resolve import SchemaCache
from streamlake.table.task.dead_letter_summary import SHOWN_CHARS, dead_letter_summary, shown


def framed(id: int, schema: Any, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return b"\0" + id.to_bytes(4, "big") + out.getvalue()


async def test_by_reason_with_examples_that_can_be_read() -> None:
    world = World()
    other = {"type": "record", "name": "Order", "fields": [{"name": "n", "type": "string"}]}
    world.registry.schemas[3] = json.dumps(other)
    world.registry.gone = {2}
    world.log.produce(0, [*good([1]), BAD, b"\xff\xfe", framed(3, other, {"n": "seven"}), *good([5, 6, 7], 2)])
    world.log.garbage(0, 4)
    await world.life().drain()
    found = dead_letter_summary(world.load("__dlq"), SchemaCache(world.registry), examples=2)
    assert (found["table"], found["records"]) == ("default.orders__dlq", 10)
    by_reason = {of["reason"]: of for of in found["reasons"]}
    assert [(of["reason"], of["records"], of["redrivable"]) for of in found["reasons"]] == [
        ("invalid_batch", 4, False), ("unknown_schema", 3, True), ("invalid_value", 2, True),
        ("incompatible_schema", 1, True),
    ]  # fmt: skip
    assert by_reason["unknown_schema"]["first"] == "1970-01-01T00:00:01.004000+00:00"
    assert len(by_reason["unknown_schema"]["examples"]) == 2
    (incompatible,) = by_reason["incompatible_schema"]["examples"]
    assert incompatible["value"] == {"schema": 3, "decoded": {"n": "seven"}}
    assert (incompatible["partition"], incompatible["offset"], incompatible["key"]) == (0, 3, {"text": "key"})
    unknown = by_reason["unknown_schema"]["examples"][0]["value"]
    assert unknown["schema"] == 2 and unknown["hex"].startswith("0000000002")
    assert {"hex": "fffe"} in [one["value"] for one in by_reason["invalid_value"]["examples"]]
    batch = by_reason["invalid_batch"]["examples"][0]
    assert (batch["offset"], batch["last_offset"], batch["timestamp"], batch["key"]) == (7, 10, None, None)
    assert dead_letter_summary(world.load("__dlq"), SchemaCache(world.registry), 0)["reasons"][0]["examples"] == []


def test_values_are_cut_and_control_characters_are_none() -> None:
    schemas = SchemaCache(World().registry)
    assert shown(None, schemas) is None
    assert shown(b"", schemas) == {"text": ""}
    assert shown("grüß dich\n".encode(), schemas) == {"text": "grüß dich\n"}
    assert shown(b"\x1b[2J", schemas) == {"hex": "1b5b324a"}
    long = shown(b"x" * 100_000, schemas)
    assert long is not None and long["text"] == "x" * SHOWN_CHARS + "…"
    assert shown(b"\0" * 5 + b"\xff" * 3, schemas) == {"schema": 0, "hex": "0000000000ffffff"}

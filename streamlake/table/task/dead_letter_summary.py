"""What a dead-letter table has, for people: by reason how many, of when, and examples as legible as they can be.

A value is shown as its text, or as what the schema says whose id it begins with, or in hexadecimal digits.
"""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table

from streamlake.core.errors import StreamLakeError
from streamlake.table.formats.by_schema_id import HEADER_BYTES, MAGIC_BYTE, schema_id
from streamlake.table.formats.converted import Reason
from streamlake.table.formats.port import Schemas
from streamlake.table.task.redrive import REDRIVABLE

EXAMPLES_MAX = 20
SHOWN_CHARS = 500  # of a value

_COUNTED = ("reason", "offset", "last_offset", "timestamp")
_SHOWN = ("partition", "offset", "last_offset", "timestamp", "error", "key", "value")


def dead_letter_summary(table: Table, schemas: Schemas, examples: int) -> dict[str, Any]:
    """JSON-ready, offsets and counts as they are; the reasons with most records first. Blocks."""
    reasons = [{**found, "examples": _examples(table, schemas, found["reason"], examples)} for found in _counted(table)]
    return {"table": ".".join(table.name()), "records": sum(found["records"] for found in reasons), "reasons": reasons}


def _counted(table: Table) -> list[dict[str, Any]]:
    """By reason: `records` counts those of bad batches too."""
    counts: dict[str, dict[str, Any]] = {}
    for batch in table.scan(selected_fields=_COUNTED).to_arrow_batch_reader():
        records = pc.add(pc.subtract(batch.column("last_offset"), batch.column("offset")), 1)
        part = pa.table({"reason": batch.column("reason"), "time": batch.column("timestamp"), "records": records})
        sums = part.group_by("reason").aggregate([("records", "sum"), ("time", "min"), ("time", "max")])
        for row in sums.to_pylist():
            known = counts.setdefault(row["reason"] or "", {"records": 0, "times": []})
            known["records"] += row["records_sum"]
            known["times"] += [time for time in (row["time_min"], row["time_max"]) if time is not None]
    found = [
        {
            "reason": reason,
            "records": of["records"],
            "redrivable": reason in REDRIVABLE,
            "first": min(of["times"]).isoformat() if of["times"] else None,
            "last": max(of["times"]).isoformat() if of["times"] else None,
        }
        for reason, of in counts.items()
    ]
    return sorted(found, key=lambda row: (-row["records"], row["reason"]))


def _examples(table: Table, schemas: Schemas, reason: str, most: int) -> list[dict[str, Any]]:
    if not most or reason not in tuple(Reason):  # somebody else's rows
        return []
    scan = table.scan(row_filter=f"reason = '{reason}'", selected_fields=_SHOWN, limit=min(most, EXAMPLES_MAX))
    return [
        {
            **{name: row[name] for name in ("partition", "offset", "last_offset", "error")},
            "timestamp": row["timestamp"].isoformat() if row["timestamp"] else None,
            "key": shown(row["key"], schemas),
            "value": shown(row["value"], schemas),
        }
        for row in scan.to_arrow().to_pylist()
    ]


def shown(data: bytes | None, schemas: Schemas) -> dict[str, Any] | None:
    """`{"text": …}`, `{"schema": id, "decoded": …}` or `{"hex": …}`; cut if it is long. None for null."""
    if data is None:
        return None
    if len(data) >= HEADER_BYTES and data[0] == MAGIC_BYTE:
        id = schema_id(data)
        decoded = next(_decoded(data, id, schemas), None)
        return {"schema": id, **({"hex": _hex(data)} if decoded is None else {"decoded": decoded})}
    try:
        text = data[: 4 * SHOWN_CHARS].decode(errors="strict" if len(data) <= 4 * SHOWN_CHARS else "ignore")
    except UnicodeDecodeError:
        return {"hex": _hex(data)}
    return {"text": _cut(text)} if text.isprintable() or text.strip().isprintable() else {"hex": _hex(data)}


def _decoded(data: bytes, id: int, schemas: Schemas) -> Iterator[Any]:
    """The value, if its schema is known and reads it."""
    try:
        read = schemas.get(id).read(pa.array([data], pa.binary()), pa.array([0], pa.int64()), HEADER_BYTES)
    except StreamLakeError:
        return
    for group in read.groups:
        for value in group.values.to_pylist():
            text = json.dumps(value, default=str, ensure_ascii=False)
            yield json.loads(text) if len(text) <= SHOWN_CHARS else _cut(text)


def _hex(data: bytes) -> str:
    return _cut(data[:SHOWN_CHARS].hex())


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"

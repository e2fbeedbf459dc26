"""Which Iceberg field id holds which source field: the memory that makes renames possible.

A key is "parent/segment": the parent is the field id of the struct around the field (for a struct in a list or map,
the id of the element or value), or a root (`row`, `value`) at the top. So a renamed struct keeps its children. Several
keys may lead to one id: the old and the new name of a renamed field. Kept in the table property `streamlake.fields`
and never forgetting: a field that comes back finds its column again.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from streamlake.core.errors import Corrupt

PROPERTY = "streamlake.fields"
VERSION = 1

FieldMap: TypeAlias = Mapping[str, int]


def key_of(parent: str | int, segment: str) -> str:
    return f"{parent}/{segment}"


def branch_segment(segment: str, branch: str) -> str:
    """The segment of a branch of a union that came to a column of another type, so that each branch has its own."""
    return f"{segment}|{branch}"


# Of the branch that takes plain values which come to the column of a union. No branch of Avro has such a name.
PLAIN = "|"


class Namer(NamedTuple):
    """What gave a column its name: a schema's id, and the Protobuf message that the field is in."""

    schema_id: int
    message: str


Namers: TypeAlias = Mapping[int, Namer]  # by field id


def encode(fields: FieldMap, namers: Namers = MappingProxyType({})) -> str:
    stored: dict[str, Any] = {"version": VERSION, "fields": dict(sorted(fields.items()))}
    if namers:
        messages: dict[str, dict[str, list[int]]] = {}
        for id, namer in sorted(namers.items()):
            messages.setdefault(namer.message, {}).setdefault(str(namer.schema_id), []).append(id)
        stored["named_by"] = messages
    return json.dumps(stored, separators=(",", ":"))


def decode_namers(text: str | None) -> Namers:
    """Of a map that `decode` takes. What is not understood names nothing: columns keep their names then."""
    found: dict[int, Namer] = {}
    try:
        for message, schemas in json.loads(text or "{}").get("named_by", {}).items():
            for schema_id, ids in schemas.items():
                found |= dict.fromkeys(map(int, ids), Namer(int(schema_id), message))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return found


def decode(text: str | None) -> FieldMap:
    """No property is an empty map: columns are then bound by name. Raises Corrupt."""
    if text is None:
        return {}
    try:
        stored = json.loads(text)
        version, fields = stored["version"], stored["fields"]
        if version == VERSION and all(type(id) is int and "/" in key for key, id in fields.items()):
            return dict(fields)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Corrupt(f"{_WRONG}: {error!r}. {_HELP}") from error
    raise Corrupt(f"{_WRONG} of version {VERSION}. {_HELP}")


_WRONG = f"the table property {PROPERTY} is not a field map"
_HELP = "Restore it, or remove it to bind columns by their names, or use a newer StreamLake"

"""Python values of one Protobuf type → one Arrow array; one builder for each kind of type.

Builders take what the messages of schema.py's descriptor hold: text as bytes, enums as ints, maps as lists of entries,
messages that become JSON as such that know no field; None where the message around is not there. A builder raises one
of BAD_VALUE if any value does not fit its column; the caller finds out whose value it was.
"""

import base64
import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message

from streamlake.table.formats.twin import Build

SECONDS_MIN, SECONDS_MAX = -62_135_596_800, 253_402_300_799  # 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z
NANOS_MAX = 999_999_999


def plain(type: Any) -> Build:
    return lambda values: pa.array(values, type)


def text(values: list[bytes | None]) -> Any:
    return pa.array(values, pa.large_binary()).cast(pa.large_string())  # Arrow checks that it is UTF-8


def unsigned(type: Any) -> Build:
    """uint64: no integer type of Iceberg holds it."""
    return lambda values: pa.array([None if v is None else Decimal(v) for v in values], type)


def enums(names: dict[int, str]) -> Build:
    """The name of each number; a number without a name is its digits."""
    named = enum_names(names)
    return lambda values: named(pa.array(values, pa.int32()))


def enum_names(names: dict[int, str]) -> Callable[[Any], Any]:
    """An int32 array of numbers → their names."""
    numbers, texts = pa.array(list(names), pa.int32()), pa.array(list(names.values()), pa.large_string())

    def named(values: Any) -> Any:
        at = pc.index_in(values, numbers)
        found = texts.take(at)
        if at.null_count == values.null_count:
            return found
        return pc.coalesce(found, values.cast(pa.large_string()))

    return named


def timestamps(values: list[Any]) -> Any:
    """Messages with seconds (f1) and nanos (f2); nanoseconds are rounded down."""

    def micros(value: Any) -> int | None:
        if value is None:
            return None
        if not (SECONDS_MIN <= value.f1 <= SECONDS_MAX and 0 <= value.f2 <= NANOS_MAX):
            raise ValueError(f"a timestamp of {value.f1} s and {value.f2} ns is not within the years 1 to 9999")
        return int(value.f1) * 1_000_000 + int(value.f2) // 1000

    return pa.array([micros(value) for value in values], pa.int64()).cast(pa.timestamp("us", "UTC"))


def wrappers(value: Build) -> Build:
    """Messages around one value (f1), which has its default if it is not there."""
    return lambda values: value([None if v is None else v.f1 for v in values])


def json_texts(kind: type[Message], pool: DescriptorPool) -> Build:
    """Messages as JSON (https://protobuf.dev/programming-guides/json/), keys in alphabetical order."""

    def shown(value: Any) -> str | None:
        return None if value is None else _json(_parsed(kind, value.SerializeToString()), pool)

    return lambda values: pa.array([shown(value) for value in values], pa.large_string())


def _parsed(kind: type[Message], data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise ValueError(str(error)) from None


def _json(message: Any, pool: DescriptorPool) -> str:
    try:
        tree = json_format.MessageToDict(message, descriptor_pool=pool)
    except (TypeError, DecodeError):  # an Any whose type the schema does not know, or whose bytes are none of it
        if message.DESCRIPTOR.full_name != "google.protobuf.Any":
            raise
        tree = {"@type": message.type_url, "value": base64.b64encode(message.value).decode()}
    except json_format.Error as error:
        raise ValueError(str(error)) from None
    return json.dumps(tree, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def structs(type: Any, fields: Sequence[tuple[str, bool]], children: Sequence[Build]) -> Build:
    """Messages. `fields` are names, and whether a field that is not there is null (else it has its default)."""

    def build(values: list[Any]) -> Any:
        arrays = [
            child(_presence(values, name) if nullable else [None if v is None else getattr(v, name) for v in values])
            for (name, nullable), child in zip(fields, children, strict=True)
        ]
        return pa.StructArray.from_arrays(arrays, fields=list(type), mask=_nulls(values))

    return build


def _presence(values: list[Any], name: str) -> list[Any]:
    return [getattr(v, name) if v is not None and v.HasField(name) else None for v in values]


def lists(type: Any, element: Build) -> Build:
    def build(values: list[Any]) -> Any:
        items: list[Any] = []
        offsets = [0]
        for value in values:
            if value is not None:
                items.extend(value)
            offsets.append(len(items))
        return pa.LargeListArray.from_arrays(
            pa.array(offsets, pa.int64()), element(items), type=type, mask=_nulls(values)
        )

    return build


def maps(type: Any, key: Build, value: Build) -> Build:
    """Lists of entries with a key (f1) and a value (f2). Of entries with one key the last counts, at the place of the
    first."""

    def build(values: list[Any]) -> Any:
        keys: list[Any] = []
        items: list[Any] = []
        offsets = [0]
        for entries in values:
            latest = {} if entries is None else {entry.f1: entry.f2 for entry in entries}
            keys.extend(latest)
            items.extend(latest.values())
            offsets.append(len(keys))
        return pa.MapArray.from_arrays(
            pa.array(offsets, pa.int32()), key(keys), value(items), type=type, mask=_nulls(values)
        )

    return build


def _nulls(values: list[Any]) -> Any:
    """The null mask, or None if nothing is null."""
    mask = [v is None for v in values]
    return pa.array(mask, pa.bool_()) if any(mask) else None

"""Python values of one Avro type → one Arrow array; one builder for each kind of type.

Builders take what fastavro reads from the logical-free schema that schema.py makes (text as bytes, enums as
ints, times as ints), so a whole column is converted at once and mostly in C. A builder raises one of BAD_VALUE if any
value does not fit its column; the caller finds out whose value it was.

Dates and timestamps outside the years 1 to 9999 do not fit: SQL engines and Python cannot read them back.
"""

from collections.abc import Sequence
from decimal import Context
from operator import itemgetter
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from streamlake.table.formats.twin import Build

DAY_MIN, DAY_MAX = -719_162, 2_932_896  # 0001-01-01 and 9999-12-31
MICROS_A_DAY = 86_400_000_000
MICROS_MIN, MICROS_MAX = DAY_MIN * MICROS_A_DAY, (DAY_MAX + 1) * MICROS_A_DAY - 1

_EXACT = Context(prec=38)


def plain(type: Any) -> Build:
    return lambda values: pa.array(values, type)


def text(values: list[bytes | None]) -> Any:
    return pa.array(values, pa.large_binary()).cast(pa.large_string())  # Arrow checks that it is UTF-8


def dates(values: list[int | None]) -> Any:
    return _within(pa.array(values, pa.int32()), DAY_MIN, DAY_MAX).cast(pa.date32())


def times(micros_per_unit: int) -> Build:
    """Times of day in units of 1 (micros) or 1000 (millis) microseconds."""

    def build(values: list[int | None]) -> Any:
        micros = pc.multiply_checked(pa.array(values, pa.int64()), micros_per_unit)
        return _within(micros, 0, MICROS_A_DAY - 1).cast(pa.time64("us"))

    return build


def timestamps(multiply: int, divide: int, timezone: str | None) -> Build:
    """Instants whose unit is `multiply` / `divide` microseconds; nanoseconds are rounded down."""

    def build(values: list[int | None]) -> Any:
        if divide > 1:
            values = [None if v is None else v // divide for v in values]
        micros = pc.multiply_checked(pa.array(values, pa.int64()), multiply)
        return _within(micros, MICROS_MIN, MICROS_MAX).cast(pa.timestamp("us", timezone))

    return build


def decimals(precision: int, scale: int) -> Build:
    """Two's complement big-endian unscaled values."""
    type = pa.decimal128(precision, scale)
    limit = 10**precision

    def exact(value: bytes | None) -> Any:
        if value is None:
            return None
        unscaled = int.from_bytes(value, "big", signed=True)
        if not -limit < unscaled < limit:
            raise ValueError(f"{unscaled} has more than the {precision} digits of its decimal type")
        return _EXACT.scaleb(_EXACT.create_decimal(unscaled), -scale)

    return lambda values: pa.array([exact(v) for v in values], type)


def uuids_of_text(values: list[bytes | None]) -> Any:
    return uuids_of_bytes([None if v is None else UUID(v.decode()).bytes for v in values])


def uuids_of_bytes(values: list[bytes | None]) -> Any:
    return pa.ExtensionArray.from_storage(pa.uuid(), pa.array(values, pa.binary(16)))


def enums(symbols: Sequence[str]) -> Build:
    names = pa.array(symbols, pa.large_string())
    return lambda values: names.take(pa.array(values, pa.int64()))  # an index out of bounds raises


def structs(type: Any, keys: Sequence[str], children: Sequence[Build]) -> Build:
    """Dicts that have every key."""

    def build(values: list[dict[str, Any] | None]) -> Any:
        mask = _nulls(values)
        columns = [_column(values, key, mask is not None) for key in keys]
        arrays = [child(column) for child, column in zip(children, columns, strict=True)]
        return pa.StructArray.from_arrays(arrays, fields=list(type), mask=mask)

    return build


def unions(type: Any, keys: Sequence[str], children: Sequence[Build]) -> Build:
    """Dicts that have the key of their branch only."""

    def build(values: list[dict[str, Any] | None]) -> Any:
        arrays = [
            child([None if v is None else v.get(key) for v in values])
            for key, child in zip(keys, children, strict=True)
        ]
        return pa.StructArray.from_arrays(arrays, fields=list(type), mask=_nulls(values))

    return build


def lists(type: Any, element: Build) -> Build:
    def build(values: list[list[Any] | None]) -> Any:
        items: list[Any] = []
        offsets = [0]
        for value in values:
            items.extend(value or ())
            offsets.append(len(items))
        return pa.LargeListArray.from_arrays(
            pa.array(offsets, pa.int64()), element(items), type=type, mask=_nulls(values)
        )

    return build


def maps(type: Any, value: Build) -> Build:
    """Dicts with text keys."""

    def build(values: list[dict[str, Any] | None]) -> Any:
        keys: list[str] = []
        items: list[Any] = []
        offsets = [0]
        for entries in values:
            keys.extend(entries or ())
            items.extend(entries.values() if entries else ())
            offsets.append(len(keys))
        return pa.MapArray.from_arrays(
            pa.array(offsets, pa.int32()),
            pa.array(keys, pa.large_string()),
            value(items),
            type=type,
            mask=_nulls(values),
        )

    return build


def _column(values: list[Any], key: str, some_null: bool) -> list[Any]:
    if some_null:
        return [None if v is None else v[key] for v in values]
    return list(map(itemgetter(key), values))


def _nulls(values: list[Any]) -> Any:
    """The null mask, or None if nothing is null."""
    return pa.array([v is None for v in values], pa.bool_()) if None in values else None


def _within(array: Any, least: int, most: int) -> Any:
    found = pc.min_max(array)
    if found["min"].is_valid and not (least <= found["min"].as_py() and found["max"].as_py() <= most):
        raise ValueError(f"a date or time of {found['min']} to {found['max']} does not fit {least} to {most}")
    return array

"""What holds of an Avro schema for all who read it, the registry and the tables: its limits, and which logical types
count. What the registry takes is not too large for a table, and both see the same type in a field.

A type counts wherever its name is written, and is a level; a list or a map is two, as in Parquet, whose readers give up
at about a hundred. `[null, T]` counts as T. A recursive schema has no end
when its names are written out: no table holds it, so only what is written counts.

A logical type that does not fit its type, or whose attributes are nonsense, "must be ignored, and the underlying Avro
type should be used": https://avro.apache.org/docs/1.12.0/specification/#logical-types
"""

import math
from dataclasses import dataclass
from typing import Any

from streamlake.core.errors import Invalid

TYPES_MAX = 5_000
LEVELS_MAX = 64
JSON_LEVELS_MAX = 5 * LEVELS_MAX  # a record, its list of fields, a field, its union: four for a level; and attributes
JSON_VALUES_MAX = 100_000
INT_MAX = 2**31 - 1

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
LOGICAL_TYPES = frozenset(
    {
        ("int", "date"),
        ("int", "time-millis"),
        ("long", "time-micros"),
        *(("long", f"{local}timestamp-{unit}") for local in ("", "local-") for unit in ("millis", "micros", "nanos")),
        ("string", "uuid"),
        ("bytes", "big-decimal"),
    }
)


def check_json(tree: Any, values_max: int = JSON_VALUES_MAX) -> None:
    """Raises Invalid. Without recursion: this is what makes recursion safe for all who come after."""
    values, level, levels = 0, [tree], 0
    while level:
        levels += 1
        values += len(level)
        if levels > JSON_LEVELS_MAX:
            raise Invalid(f"the schema is nested more than {LEVELS_MAX} levels deep")
        if values > values_max:
            raise Invalid(f"the schema has more than {values_max:,} elements")
        below: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                below.extend(node.values())
            elif isinstance(node, list):
                below.extend(node)
        level = below


def check_types(parsed: Any) -> None:
    """Raises Invalid if there are too many types or levels, or a union that does not tell its types apart. `parsed` is
    fastavro's, with full names."""
    measured = _Measure()
    size = measured.of(parsed)
    if max(measured.written, size.types) > TYPES_MAX:  # of a type inside itself, the name is all that is written
        raise Invalid(f"the schema has more than {TYPES_MAX:,} types when its names are written out")
    if size.levels > LEVELS_MAX:
        raise Invalid(f"the schema is nested more than {LEVELS_MAX} levels deep")


def understood(schema: Any) -> Any:
    """A copy of the schema, for parsers: without the logical types that are to be ignored."""
    if isinstance(schema, list):
        return [understood(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    copy = dict(schema)
    if "logicalType" in copy and not _is_logical(copy):
        del copy["logicalType"]
    for key in ("type", "items", "values"):
        if isinstance(copy.get(key), dict | list):
            copy[key] = understood(copy[key])
    if isinstance(fields := copy.get("fields"), list):
        copy["fields"] = [_understood_field(field) for field in fields]
    if copy.get("type") in PRIMITIVES and "logicalType" not in copy:
        return copy["type"]  # fastavro takes 0 as a default of "double", but not of {"type": "double"}
    return copy


def _understood_field(field: Any) -> Any:
    return {**field, "type": understood(field["type"])} if isinstance(field, dict) and "type" in field else field


def _is_logical(schema: dict[str, Any]) -> bool:
    type, logical = schema.get("type"), schema["logicalType"]
    if not isinstance(type, str) or not isinstance(logical, str):
        return False
    match type, logical:
        case "bytes" | "fixed", "decimal":
            return _is_decimal(schema)
        case "fixed", "uuid":
            return schema.get("size") == 16
        case "fixed", "duration":
            return schema.get("size") == 12
    return (type, logical) in LOGICAL_TYPES


def _is_decimal(schema: dict[str, Any]) -> bool:
    precision, scale = schema.get("precision"), schema.get("scale", 0)
    if type(precision) is not int or type(scale) is not int:  # `true` is no number, though Python thinks so
        return False
    digits_max = INT_MAX
    if schema["type"] == "fixed":
        size = schema.get("size")
        digits_max = math.floor(math.log10(2) * (8 * size - 1)) if type(size) is int and size > 0 else 0
    return 0 < precision <= digits_max and 0 <= scale <= precision


def branch_name(branch: Any) -> str:
    """What a union knows its branch by: the full name, or the kind of a type that has none."""
    if not isinstance(branch, dict):
        return str(branch)
    return str(branch.get("name") or branch["type"])


@dataclass(frozen=True, slots=True)
class _Size:
    types: int
    levels: int


_LEAF = _Size(1, 1)


class _Measure:
    """`written`: types, each definition once."""

    def __init__(self) -> None:
        self.written = 0
        self._sizes: dict[str, _Size] = {}

    def of(self, schema: Any) -> _Size:
        if isinstance(schema, list):
            return self._union(schema)
        self.written += 1
        if isinstance(schema, str):
            return self._sizes.get(schema, _LEAF)
        match schema["type"]:
            case "record" | "error":
                return self._record(schema)
            case "array":
                return _around([self.of(schema["items"])], levels=2)
            case "map":
                return _around([self.of(schema["values"])], levels=2)
        return _LEAF

    def _union(self, branches: list[Any]) -> _Size:
        """Null costs nothing, nor does a union of one type."""
        names = [branch_name(branch) for branch in branches]
        if len(set(names)) < len(names):
            raise Invalid(f"a union of {', '.join(names)} has two types of one name")
        sizes = [self.of(branch) for branch, name in zip(branches, names, strict=True) if name != "null"]
        if len(sizes) > 1:
            self.written += 1
            return _around(sizes)
        return sizes[0] if sizes else _LEAF

    def _record(self, schema: dict[str, Any]) -> _Size:
        size = _around([self.of(field["type"]) for field in schema["fields"]])
        self._sizes[schema["name"]] = size
        return size


def _around(inside: list[_Size], levels: int = 1) -> _Size:
    return _Size(1 + sum(size.types for size in inside), levels + max((size.levels for size in inside), default=0))

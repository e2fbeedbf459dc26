"""The columns of plain JSON, which has no schema: each gets the type of its first value that is not null.

A key is a column of the type of its value: boolean, long, double, string, a struct of its own keys, or a list of one
type. Dates are not guessed. Empty objects and lists say nothing, and wait for the next. What the table has already
stays: its columns come first, in their types. When there are as many columns as the topic is configured to have, keys
get no more. Such keys, and values that do not fit their column, go to the rest (native.py): nothing is lost.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streamlake.table.formats.json.native import LEAVES, REST_COLUMN, Op, Plan, PlanField
from streamlake.table.formats.json.scan import is_text
from streamlake.table.formats.source_schema import SourceList, SourceMap, SourceStruct, SourceType

LEVELS_MAX = 8  # of structs and lists
KEY_CHARS_MAX = 255
LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1
LONG_CHARS_MAX = 20


@dataclass(slots=True)
class Known:
    """What is known of the values under one key. `op` REST: they get no column."""

    op: Op
    fields: dict[str, "Known"] = field(default_factory=dict)
    child: "Known | None" = None

    def plan(self, rest: bool = False) -> Plan:
        fields = tuple(PlanField(name, known.plan()) for name, known in self.fields.items())
        return Plan(self.op, fields, None if self.child is None else self.child.plan(), rest)

    def columns(self) -> int:
        inner = [*self.fields.values(), *([self.child] if self.child else [])]
        return (self.op != Op.REST) + sum(known.columns() for known in inner)


class Inference:
    """What is known of all values of a topic. It grows, and never changes."""

    def __init__(self, columns: Mapping[str, SourceType | None], columns_max: int) -> None:
        """`columns`: what the table has already, by key; None for a type that is none of JSON's."""
        self._root = Known(Op.STRUCT, {key: _known(type) for key, type in columns.items()})
        self._root.fields[REST_COLUMN] = Known(Op.REST)  # a key of the records that would be taken for the rest itself
        self._columns_max = columns_max
        self._columns = self._root.columns() - 1

    @property
    def is_full(self) -> bool:
        return self._columns >= self._columns_max

    def plan(self) -> Plan:
        return self._root.plan(rest=True)

    def learn(self, data: bytes) -> bool:
        """Columns for the keys of one value, if it is an object; whether there is a new one."""
        try:
            value = json.loads(data, parse_int=_whole)
        except (ValueError, RecursionError):
            return False
        return isinstance(value, dict) and self._object(self._root, value, 1)

    def _object(self, known: Known, value: dict[str, Any], level: int) -> bool:
        grew = False
        for key, item in value.items():
            if item is None or not is_text(key):
                continue
            if key in known.fields:
                grew = self._inside(known.fields[key], item, level) or grew
            elif not self.is_full:
                found = self._new(item, level) if _is_name(key) else Known(Op.REST)
                if found is not None:
                    known.fields[key] = found
                    grew = True
        return grew

    def _inside(self, known: Known, item: Any, level: int) -> bool:
        if known.op == Op.STRUCT and isinstance(item, dict):
            return self._object(known, item, level + 1)
        if known.op == Op.LIST and isinstance(item, list):
            assert known.child is not None
            grew = [self._inside(known.child, one, level + 1) for one in item]
            return any(grew)
        return False

    def _new(self, item: Any, level: int) -> Known | None:
        """None: the value says nothing yet."""
        match item:
            case bool():
                return self._counted(Known(Op.BOOLEAN))
            case int() if LONG_MIN <= item <= LONG_MAX:
                return self._counted(Known(Op.LONG))
            case float():
                return self._counted(Known(Op.DOUBLE))
            case str():
                return self._counted(Known(Op.TEXT))
            case dict() | list() if level >= LEVELS_MAX:
                return Known(Op.REST) if item else None
            case dict():
                return self._struct(item, level)
            case list():
                return self._list(item, level)
        return None

    def _struct(self, item: dict[str, Any], level: int) -> Known | None:
        known = self._counted(Known(Op.STRUCT))
        self._object(known, item, level + 1)
        if any(inner.op != Op.REST for inner in known.fields.values()):
            return known
        self._columns -= 1
        return None

    def _list(self, item: list[Any], level: int) -> Known | None:
        for one in item:
            child = None if one is None else self._new(one, level + 1)
            if child is not None and child.op != Op.REST:
                known = self._counted(Known(Op.LIST, child=child))
                self._inside(known, item, level)
                return known
        return None

    def _counted(self, known: Known) -> Known:
        self._columns += 1
        return known


def _whole(text: str) -> int:
    """Python refuses to read thousands of digits: all that no column holds are the same here."""
    return int(text) if len(text) <= LONG_CHARS_MAX else LONG_MAX + 1


def _is_name(key: str) -> bool:
    """Of a column: one that people can write."""
    return 0 < len(key) <= KEY_CHARS_MAX and key.isprintable()


def _known(type: SourceType | None) -> Known:
    """Of a column that the table has."""
    match type:
        case SourceStruct(fields):
            return Known(Op.STRUCT, {field.segment: _known(field.type) for field in fields})
        case SourceList(element):
            child = _known(element)
            return Known(Op.REST) if child.op == Op.REST else Known(Op.LIST, child=child)
        case SourceMap(_, value):
            child = _known(value)
            return Known(Op.REST) if child.op == Op.REST else Known(Op.MAP, child=child)
    return next((Known(op) for op, leaf in LEAVES.items() if leaf == type and op != Op.JSON), Known(Op.REST))

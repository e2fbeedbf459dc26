"""The plan of a writer's schema, compiled for the kernel, and the Arrow arrays around what the kernel made.

A plan has a node for each type of an Avro schema. It says the same as the twin's pair of a decoder (what is on the
wire) and a builder (what column it makes); schema.py makes all three. Which values belong to a schema, and what is
wrong with those that the kernel refuses, is convert.py's business.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import pyarrow as pa

from streamlake.core import native
from streamlake.table.formats.buffers import Buffers, array_of, int64_bytes, int64s
from streamlake.table.formats.twin import NativeReader

_kernel = native.load("streamlake.table.formats.avro.kernel")


class Op(IntEnum):
    """The numbers are the kernel's."""

    NOTHING = 0  # null: no bytes and no column
    BOOLEAN = 1
    INT = 2
    LONG = 3
    FLOAT = 4
    DOUBLE = 5
    BYTES = 6
    TEXT = 7
    FIXED = 8
    DATE = 9
    TIME = 10
    TIMESTAMP = 11
    DECIMAL = 12
    UUID_TEXT = 13
    ENUM = 14
    STRUCT = 15
    CHOICE = 16  # a union of one type, and null perhaps: its column is that of its only child with a column
    UNION = 17  # of several types: a struct whose child number i is branch number i's
    LIST = 18
    MAP = 19  # children: the keys, the values


@dataclass(frozen=True, slots=True)
class Plan:
    """`type` is the Arrow type of the column, None if there is none: then bytes are read and dropped."""

    op: Op
    type: Any = None
    children: tuple["Plan", ...] = ()
    size: int = 0  # FIXED: bytes; DECIMAL: bytes, 0 if they are on the wire; ENUM: symbols
    multiply: int = 1  # TIME, TIMESTAMP: to microseconds
    divide: int = 1
    precision: int = 0  # DECIMAL: digits
    symbols: tuple[str, ...] = ()  # ENUM


NOTHING = Plan(Op.NOTHING)


def compile_plan(plan: Plan) -> NativeReader | None:
    """None if there is no kernel, or nothing to make a column of."""
    return _Compiled(plan) if _kernel and plan.type is not None else None


class _Compiled:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._nodes: list[tuple[int, ...]] = []
        self._children: list[int] = []
        self._columns = 0
        root, _ = self._node(plan)
        self._reader = _kernel.Reader(self._nodes, self._children, self._columns, root)

    def _node(self, plan: Plan) -> tuple[int, int]:
        """(number of the node, of its column), after those of all below it, so that a tree of columns can be put
        together from the last one back."""
        children = [self._node(child) for child in plan.children]
        column = -1
        if plan.op == Op.CHOICE:
            column = next((column for _, column in children if column >= 0), -1)
        elif plan.type is not None:
            column = self._columns
            self._columns += 1
        first = len(self._children)
        self._children += [number for number, _ in children]
        self._nodes.append(
            (plan.op, column, first, len(children), plan.size, plan.multiply, plan.divide, plan.precision)
        )
        return len(self._nodes) - 1, column

    def read(self, column: Any, rows: Any, skip_bytes: int) -> tuple[Any, Any, Any]:
        _, offsets, data = column.buffers()
        taken, refused, columns = self._reader.read(offsets, data or b"", column.offset, int64_bytes(rows), skip_bytes)
        return int64s(taken), int64s(refused), _array(self._plan, columns)


def _array(plan: Plan, columns: list[Buffers]) -> Any:
    """Of the last of `columns`, which are taken from the list as they are used."""
    if plan.op == Op.CHOICE:
        return _array(next(child for child in plan.children if child.type is not None), columns)
    column = columns.pop()
    children = [_array(child, columns) for child in reversed(plan.children) if child.type is not None][::-1]
    if plan.op == Op.ENUM:
        return pa.array(plan.symbols, plan.type).take(array_of(pa.int32(), column))
    return array_of(plan.type, column, children)

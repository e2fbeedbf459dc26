"""The plan of JSON values, compiled for the kernel, and the Arrow arrays around what the kernel made.

A plan says which values make which columns; the twin (scan.py) reads by the same. Where it has a *rest*, values that do
not fit are kept there as text: see infer.py.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import pyarrow as pa
from pyiceberg.types import BooleanType, DoubleType, LongType, PrimitiveType, StringType

from streamlake.core import native
from streamlake.table.formats.buffers import Buffers, array_of, int64_bytes, int64s
from streamlake.table.formats.source_schema import (
    SourceField,
    SourceList,
    SourceMap,
    SourceStruct,
    SourceType,
    arrow_type,
)

_kernel = native.load("streamlake.table.formats.json.kernel")

REST_COLUMN = "_rest"


class Op(IntEnum):
    """The numbers are the kernel's."""

    NOTHING = 0  # checked, and dropped
    BOOLEAN = 1
    LONG = 2
    DOUBLE = 3
    TEXT = 4
    JSON = 5  # the text of any value
    STRUCT = 6
    LIST = 7
    MAP = 8
    REST = 9  # no column: goes to the rest
    RESTS = 10  # the column of the rest


LEAVES: dict[Op, PrimitiveType] = {
    Op.BOOLEAN: BooleanType(),
    Op.LONG: LongType(),
    Op.DOUBLE: DoubleType(),
    Op.TEXT: StringType(),
    Op.JSON: StringType(),
}


@dataclass(frozen=True, slots=True)
class PlanField:
    name: str
    plan: "Plan"
    doc: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """`fields`: of a STRUCT. `child`: the element of a LIST, the value of a MAP. `rest`: of the outermost STRUCT,
    whether it has one."""

    op: Op
    fields: tuple[PlanField, ...] = ()
    child: "Plan | None" = None
    rest: bool = False

    @property
    def type(self) -> SourceType | None:
        """None if it makes no column."""
        if self.op in LEAVES:
            return LEAVES[self.op]
        if self.child is not None:
            inner = self.child.type
            assert inner is not None, "a list or a map of nothing has no type"
            return SourceList(inner) if self.op == Op.LIST else SourceMap(StringType(), inner)
        fields = [(field, field.plan.type) for field in self.fields]
        found = [SourceField(field.name, field.name, type, doc=field.doc) for field, type in fields if type is not None]
        if self.rest:
            found.append(SourceField(REST_COLUMN, REST_COLUMN, StringType()))
        return SourceStruct(tuple(found)) if found else None


@dataclass(frozen=True, slots=True)
class Taken:
    """`rows` were taken, and `refused` not (int64 arrays); `novel` are those of `rows` with a key that has no column
    and might have one."""

    rows: Any
    refused: Any
    novel: Any
    values: Any


def compile_plan(plan: Plan) -> "Compiled | None":
    """None if there is no kernel, or nothing to make a column of."""
    return Compiled(plan) if _kernel and plan.type is not None else None


class Compiled:
    """Implements NativeReader."""

    def __init__(self, plan: Plan) -> None:
        self._nodes: list[tuple[int, int, int, int]] = []
        self._fields: list[tuple[bytes, int]] = []
        self._order: list[int] = []
        self._columns = 0
        self._tree = self._node(plan)
        root = len(self._nodes) - 1
        rest = -1
        if plan.rest:
            found = self._node(Plan(Op.RESTS))
            self._tree.children.append(found)
            rest = found.column
        self._reader = _kernel.Reader(self._nodes, self._fields, self._order, self._columns, root, rest)

    def _node(self, plan: Plan) -> "_Tree":
        """The number of its node is the last."""
        type = pa.large_string() if plan.op == Op.RESTS else _arrow(plan)
        column = -1
        if type is not None:
            column = self._columns
            self._columns += 1
        trees, numbers = [], []
        parts = _parts(plan) if type is not None else []
        for _, part in parts:
            trees.append(self._node(part))
            numbers.append(len(self._nodes) - 1)
        first = len(self._fields)
        keys = [name.encode() for name, _ in parts]
        self._fields += zip(keys, numbers, strict=True)
        # The kernel looks keys up by their length, then their bytes.
        self._order += [first + at for at in sorted(range(len(keys)), key=lambda at: (len(keys[at]), keys[at]))]
        self._nodes.append((plan.op, column, first, len(keys)))
        return _Tree(type, column, [tree for tree in trees if tree.type is not None])

    def take(self, column: Any, rows: Any, skip_bytes: int) -> Taken:
        """See NativeReader."""
        _, offsets, data = column.buffers()
        taken, refused, novel, columns = self._reader.read(
            offsets, data or b"", column.offset, int64_bytes(rows), skip_bytes
        )
        return Taken(int64s(taken), int64s(refused), int64s(novel), _array(self._tree, columns))

    def read(self, column: Any, rows: Any, skip_bytes: int) -> tuple[Any, Any, Any]:
        found = self.take(column, rows, skip_bytes)
        return found.rows, found.refused, found.values


def _arrow(plan: Plan) -> Any:
    type = plan.type
    return None if type is None else arrow_type(type)


def _parts(plan: Plan) -> list[tuple[str, Plan]]:
    """What is inside, by key."""
    if plan.child is not None:
        return [("", Plan(Op.TEXT)), ("", plan.child)] if plan.op == Op.MAP else [("", plan.child)]
    return [(field.name, field.plan) for field in plan.fields]


@dataclass(frozen=True, slots=True)
class _Tree:
    """`children` are those with a column."""

    type: Any
    column: int
    children: list["_Tree"]


def _array(tree: _Tree, columns: list[Buffers]) -> Any:
    return array_of(tree.type, columns[tree.column], [_array(child, columns) for child in tree.children])

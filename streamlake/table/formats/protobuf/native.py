"""The plan of a message, compiled for the kernel, and the Arrow arrays around what the kernel made.

A plan has a node for each place of a type in a message. It says the same as the twin's rewritten descriptor (what is on
the wire) and builders (what columns it makes); schema.py makes all three.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import pyarrow as pa

from streamlake.core import native
from streamlake.table.formats.buffers import Buffers, array_of, int64_bytes, int64s
from streamlake.table.formats.twin import NativeReader

_kernel = native.load("streamlake.table.formats.protobuf.kernel")


class Op(IntEnum):
    """The numbers are the kernel's."""

    BOOL = 0
    INT32 = 1
    SINT32 = 2
    UINT32 = 3
    INT64 = 4
    SINT64 = 5
    UINT64 = 6
    FLOAT = 7
    DOUBLE = 8
    ENUM = 9
    TEXT = 10
    BYTES = 11
    MESSAGE = 12
    LIST = 13  # child: the element
    MAP = 14  # child: the ENTRY
    ENTRY = 15  # fields: the key, the value; it has no column of its own
    TIMESTAMP = 16
    WRAPPER = 17  # child: the value, which is where its column is
    OPAQUE = 18  # the twin's: no value is taken


class Wire(IntEnum):
    """https://protobuf.dev/programming-guides/encoding/#structure"""

    VARINT = 0
    EIGHT = 1
    SIZED = 2
    GROUP = 3
    FOUR = 5


@dataclass(frozen=True, slots=True)
class PlanField:
    """`wire`: of one value. `nullable`: it is null if it is not there, else it has its default. `oneof`: its number in
    the message, or -1."""

    number: int
    wire: Wire
    plan: "Plan"
    nullable: bool = False
    required: bool = False
    oneof: int = -1


@dataclass(frozen=True, slots=True)
class Plan:
    """`type` is the Arrow type of the column, None if there is none: then bytes are read and dropped."""

    op: Op
    type: Any = None
    child: "Plan | None" = None
    wire: Wire = Wire.SIZED  # of one value, if it is the child of a LIST or WRAPPER
    fields: tuple[PlanField, ...] = ()
    names: Callable[[Any], Any] | None = None  # ENUM: an int32 array → the names


def compile_plan(plan: Plan) -> NativeReader | None:
    """None if there is no kernel, or nothing to make a column of."""
    return _Compiled(plan) if _kernel and plan.type is not None else None


class _Compiled:
    def __init__(self, plan: Plan) -> None:
        self._nodes: list[tuple[int, ...]] = []
        self._fields: list[tuple[int, ...]] = []
        self._columns = 0
        self._tree = self._node(plan)
        self._reader = _kernel.Reader(self._nodes, self._fields, self._columns, self._tree.number)

    def _node(self, plan: Plan) -> "_Tree":
        child = None if plan.child is None else self._node(plan.child)
        trees = [self._node(field.plan) for field in plan.fields]
        column = -1
        if plan.op == Op.WRAPPER:
            assert child is not None
            column = child.column
        elif plan.type is not None and plan.op != Op.ENTRY:
            column = self._columns
            self._columns += 1
        first = len(self._fields)
        # The kernel looks fields up by their number.
        for field, tree in sorted(zip(plan.fields, trees, strict=True), key=lambda pair: pair[0].number):
            self._fields.append((field.number, field.wire, tree.number, field.nullable, field.required, field.oneof))
        below = -1 if child is None else child.number
        self._nodes.append((plan.op, column, first, len(plan.fields), below, plan.wire))
        with_columns = [tree for tree in ([child] if child else trees) if tree.plan.type is not None]
        return _Tree(plan, len(self._nodes) - 1, column, with_columns)

    def read(self, column: Any, rows: Any, skip_bytes: int) -> tuple[Any, Any, Any]:
        _, offsets, data = column.buffers()
        taken, refused, columns = self._reader.read(offsets, data or b"", column.offset, int64_bytes(rows), skip_bytes)
        return int64s(taken), int64s(refused), _array(self._tree, columns)


@dataclass(frozen=True, slots=True)
class _Tree:
    """`number`: of the node. `children` are those with a column, in the order of the message."""

    plan: Plan
    number: int
    column: int
    children: list["_Tree"]


def _array(tree: _Tree, columns: list[Buffers]) -> Any:
    plan = tree.plan
    if plan.op == Op.WRAPPER:
        return _array(tree.children[0], columns)
    column = columns[tree.column]
    if plan.op == Op.ENUM:
        assert plan.names is not None
        return plan.names(array_of(pa.int32(), column))
    within = tree.children[0].children if plan.op == Op.MAP else tree.children  # a map's entries are no column
    return array_of(plan.type, column, [_array(child, columns) for child in within])

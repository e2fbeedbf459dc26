"""How the kernel reads a value: one step for each type of an Avro schema, as avro_schema.py compiles it.

The plan says the same as the twin's pair of a decoder (what is on the wire) and a builder (what column it makes).
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any


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

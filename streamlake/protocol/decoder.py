"""Compiles (message class, version) to a function from bytes to the message.

What makes it safe on foreign bytes: an array's length is checked against the bytes that are left before anything is
allocated, varints end after five bytes, tagged fields must fill their size, unknown ones are skipped (KIP-482), nesting
is as deep as the class. A slice of a short frame is short without an error, so the position only ever grows, and
codec.decode checks at the end that it has not run past the frame. Array elements and tagged fields of one message are
counted against `room`: an element of one byte costs a hundred in memory, and a microsecond of the only loop there is.

Fields that a version does not have take their default. `records` come out as views of the frame, uncopied.
"""

import functools
import itertools
import struct
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from msgspec import Struct

from streamlake.protocol.fields import Field, fields_at, fields_of
from streamlake.protocol.source import Source
from streamlake.protocol.wire import (
    NO_UUID_BYTES,
    Buffer,
    read_varint,
    refuse_count,
    refuse_length,
    refuse_null,
    refuse_tag,
)

_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")

# (frame, position, room) -> (message, position after it). `room` holds one number: how many array elements and tagged
# fields may still come; it is counted down. IndexError, struct.error, UnicodeDecodeError, Malformed.
Decoder = Callable[[Buffer, int, list[int]], tuple[Any, int]]


@functools.cache
def decoder(message: type[Struct], version: int, flexible: bool) -> Decoder:
    return _DecoderSource(message, version, flexible).compiled()


@functools.cache
def smallest_bytes(message: type[Struct], version: int, flexible: bool) -> int:
    """The fewest bytes that a message of this class can have."""
    fields = (f for f in fields_at(message, version) if f.tag is None)
    return sum(_smallest_field_bytes(f, version, flexible) for f in fields) + flexible


def _smallest_field_bytes(f: Field, version: int, flexible: bool) -> int:
    if f.is_array:
        return 1 if flexible else _INT32.size
    if version in f.null_versions and f.struct:
        return 1
    return _smallest_element_bytes(f, version, flexible)


def _smallest_element_bytes(f: Field, version: int, flexible: bool) -> int:
    if f.format:
        return struct.calcsize(">" + f.format)
    if f.struct:
        return smallest_bytes(f.struct, version, flexible)
    return 1 if flexible else _element_length(f).size


def _element_length(f: Field) -> struct.Struct:
    """How the length of one string or byte sequence is written in versions that are not flexible."""
    return _INT16 if f.kind == "string" else _INT32


def _is_fixed(f: Field) -> bool:
    return f.format is not None and not f.is_array


class _DecoderSource(Source):
    """In the source: `frame`, the position `at` in it, `room`, the length `n` read last, and `v_name` per field."""

    def __init__(self, message: type[Struct], version: int, flexible: bool) -> None:
        super().__init__(
            UUID=UUID,
            NO_UUID_BYTES=NO_UUID_BYTES,
            unpack_from=struct.unpack_from,
            read_varint=read_varint,
            refuse_count=refuse_count,
            refuse_null=refuse_null,
            refuse_length=refuse_length,
            refuse_tag=refuse_tag,
        )
        self._message = message
        self._version = version
        self._flexible = flexible

    def compiled(self) -> Decoder:
        fields = fields_at(self._message, self._version)
        with self.block("def decode(frame, at, room):"):
            for fixed, run in itertools.groupby((f for f in fields if f.tag is None), _is_fixed):
                if fixed:
                    self._fixed_run(list(run))
                else:
                    for f in run:
                        self._field(f)
            if self._flexible:
                self._tag_section([f for f in fields if f.tag is not None])
            values = [f"v_{f.name}" if f in fields else self.constant(f.default) for f in fields_of(self._message)]
            self.line(f"return {self.constant(self._message)}({', '.join(values)}), at")
        return self.function("decode", f"decode {self._message.__name__} version {self._version}")

    def _fixed_run(self, fields: Sequence[Field]) -> None:
        self._unpack([(f"v_{f.name}", f) for f in fields])

    def _unpack(self, targets: Sequence[tuple[str, Field]]) -> None:
        """Fields of fixed size that follow each other, in one call."""
        layout = struct.Struct(">" + "".join(f.format or "" for _, f in targets))
        self.line(f"{', '.join(target for target, _ in targets)}, = {self.constant(layout.unpack_from)}(frame, at)")
        self.line(f"at += {layout.size}")
        for target, f in targets:
            if f.kind == "uuid":
                self.line(f"{target} = None if {target} == NO_UUID_BYTES else UUID(bytes={target})")

    def _field(self, f: Field) -> None:
        may_be_null = self._version in f.null_versions
        if f.is_array:
            self._array(f, may_be_null)
        else:
            self._element(f, f"v_{f.name}", may_be_null)

    def _element(self, f: Field, target: str, may_be_null: bool) -> None:
        if f.format:
            self._unpack([(target, f)])
        elif f.struct:
            self._struct(f.struct, target, may_be_null)
        else:
            self._length(_element_length(f))
            self._if_null(f, target, may_be_null)
            with self.block("else:"):
                self.line(f"{target} = {self._slice(f.kind)}")
                self.line("at += n")

    def _struct(self, inner: type[Struct], target: str, may_be_null: bool) -> None:
        call = f"{target}, at = {self.constant(decoder(inner, self._version, self._flexible))}(frame, at, room)"
        if not may_be_null:
            self.line(call)
            return
        self.line("n = frame[at]")
        self.line("at += 1")
        with self.block("if n > 127:"):  # a negative int8
            self.line(f"{target} = None")
        with self.block("else:"):
            self.line(call)

    def _slice(self, kind: str) -> str:
        if kind == "string":
            return "str(frame[at : at + n], 'utf-8')"
        if kind == "records":
            return "memoryview(frame)[at : at + n]"
        return "bytes(frame[at : at + n])"

    def _length(self, legacy: struct.Struct) -> None:
        """Read `n`; null is negative."""
        if not self._flexible:
            self.line(f"n, = {self.constant(legacy.unpack_from)}(frame, at)")
            self.line(f"at += {legacy.size}")
            return
        self.line("n = frame[at] - 1")
        self.line("at += 1")
        with self.block("if n > 126:"):
            with self.block("if frame[at] < 128:"):  # two bytes: most record batches of small requests
                self.line("n += (frame[at] << 7) - 128")
                self.line("at += 1")
            with self.block("else:"):
                self.line("n, at = read_varint(frame, at - 1)")
                self.line("n -= 1")

    def _if_null(self, f: Field, target: str, may_be_null: bool) -> None:
        with self.block("if n < 0:"):
            self.line(f"{target} = None" if may_be_null else f"refuse_null({f.where!r})")

    def _array(self, f: Field, may_be_null: bool) -> None:
        self._length(_INT32)
        self._if_null(f, f"v_{f.name}", may_be_null)
        smallest = max(1, _smallest_element_bytes(f, self._version, self._flexible))
        with self.block(f"elif n * {smallest} > len(frame) - at:"):
            self.line(f"refuse_length({f.where!r})")
        with self.block("else:"):
            self._take_room("n", f.where)
            if f.format and f.kind != "uuid":
                self.line(f"v_{f.name} = unpack_from(f'>{{n}}{f.format}', frame, at)")
                self.line(f"at += n * {smallest}")
                return
            self.line("items = []")
            with self.block("for _ in range(n):"):
                self._element(f, "item", may_be_null=False)
                self.line("items.append(item)")
            self.line(f"v_{f.name} = tuple(items)")

    def _tag_section(self, fields: Sequence[Field]) -> None:
        for f in fields:
            self.line(f"v_{f.name} = {self.constant(f.default)}")
        self.line("count = frame[at]")
        self.line("at += 1")
        with self.block("if count:"):
            self.line("count, at = read_varint(frame, at - 1)")
            self._take_room("count", self._message.__name__)
            with self.block("for _ in range(count):"):
                self.line("tag, at = read_varint(frame, at)")
                self.line("size, at = read_varint(frame, at)")
                self.line("end = at + size")
                for f in fields:
                    with self.block(f"if tag == {f.tag}:"):
                        self._field(f)
                        self.line(f"if at != end: refuse_tag({f.where!r})")
                self.line("at = end")

    def _take_room(self, count: str, where: str) -> None:
        self.line(f"room[0] -= {count}")
        self.line(f"if room[0] < 0: refuse_count({where!r})")

"""Compiles (message class, version) to a function from the message to bytes.

Everything but record bytes is written into one bytearray. Where large records belong, the place is noted as a cut; the
caller sends the pieces between the cuts and the records themselves, which are never copied.

Only the fields of the version are written; tagged fields only if they differ from their default (KIP-482).
"""

import functools
import itertools
import struct
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from streamlake.protocol.fields import Field, fields_at
from streamlake.protocol.source import Source
from streamlake.protocol.wire import NO_UUID, Buffer, Chunks, varint

# Where in the bytearray a buffer belongs that was not copied into it.
Cut = tuple[int, Buffer]

# (message, bytearray to extend, cuts to extend). Any error of Python that a wrong value leads to.
Encoder = Callable[[Any, bytearray, list[Cut]], None]

# Below this, copying is cheaper than handling one more buffer.
_SMALLEST_CUT_BYTES = 2048


@functools.cache
def encoder(message: type[Struct], version: int, flexible: bool) -> Encoder:
    return _EncoderSource(message, version, flexible).compiled()


def _is_fixed(f: Field) -> bool:
    return f.format is not None and not f.is_array


class _EncoderSource(Source):
    """In the source: `message`, the bytearray `out`, `cuts`, and `body`, the bytearray of one tagged field."""

    def __init__(self, message: type[Struct], version: int, flexible: bool) -> None:
        super().__init__(Chunks=Chunks, NO_UUID=NO_UUID, pack=struct.pack, varint=varint)
        self._message = message
        self._version = version
        self._flexible = flexible
        self._out = "out"

    def compiled(self) -> Encoder:
        fields = fields_at(self._message, self._version)
        with self.block("def encode(message, out, cuts):"):
            for fixed, run in itertools.groupby((f for f in fields if f.tag is None), _is_fixed):
                if fixed:
                    self._pack([(f"message.{f.name}", f) for f in run])
                else:
                    for f in run:
                        self._field(f)
            if self._flexible:
                self._tag_section([f for f in fields if f.tag is not None])
            self.line("return")
        return self.function("encode", f"encode {self._message.__name__} version {self._version}")

    def _pack(self, sources: Sequence[tuple[str, Field]]) -> None:
        """Fields of fixed size that follow each other, in one call."""
        layout = struct.Struct(">" + "".join(f.format or "" for _, f in sources))
        values = [f"({source} or NO_UUID).bytes" if f.kind == "uuid" else source for source, f in sources]
        self.line(f"{self._out} += {self.constant(layout.pack)}({', '.join(values)})")

    def _field(self, f: Field) -> None:
        self.line(f"value = message.{f.name}")
        if self._version not in f.null_versions:
            self._value(f)
            return
        with self.block("if value is None:"):
            self.line(f"{self._out} += {self._null(f)!r}")
        with self.block("else:"):
            if f.struct and not f.is_array:
                self.line(f"{self._out} += {bytes([1])!r}")
            self._value(f)

    def _null(self, f: Field) -> bytes:
        if f.struct and not f.is_array:
            return b"\xff"
        if self._flexible:
            return b"\x00"
        return b"\xff\xff" if f.kind == "string" and not f.is_array else b"\xff\xff\xff\xff"

    def _value(self, f: Field) -> None:
        if f.is_array:
            self._array(f)
        else:
            self._element(f, "value")

    def _array(self, f: Field) -> None:
        self._length("value", ">i")
        if f.format and f.kind != "uuid":
            self.line(f"{self._out} += pack(f'>{{len(value)}}{f.format}', *value)")
            return
        with self.block("for item in value:"):
            self._element(f, "item")

    def _element(self, f: Field, source: str) -> None:
        if f.format:
            self._pack([(source, f)])
        elif f.struct:
            inner = self.constant(encoder(f.struct, self._version, self._flexible))
            # No tagged field of Kafka's holds records: None would tell at once if one came to.
            self.line(f"{inner}({source}, {self._out}, {'cuts' if self._out == 'out' else None})")
        elif f.kind == "string":
            self.line(f"text = {source}.encode()")
            self._length("text", ">h")
            self.line(f"{self._out} += text")
        else:
            self._length(source, ">i")
            self._bytes(f, source)

    def _bytes(self, f: Field, source: str) -> None:
        if f.kind == "records":
            with self.block(f"if {source}.__class__ is Chunks:"):
                self.line(f"cuts.extend((len(out), buffer) for buffer in {source}.buffers)")
            with self.block(f"elif len({source}) >= {_SMALLEST_CUT_BYTES}:"):
                self.line(f"cuts.append((len(out), {source}))")
            with self.block("else:"):
                self.line(f"{self._out} += {source}")
        else:
            self.line(f"{self._out} += {source}")

    def _length(self, source: str, legacy_format: str) -> None:
        if self._flexible:
            self.line(f"{self._out} += varint(len({source}) + 1)")
        else:
            self.line(f"{self._out} += {self.constant(struct.Struct(legacy_format).pack)}(len({source}))")

    def _tag_section(self, fields: Sequence[Field]) -> None:
        if not fields:
            self.line("out.append(0)")
            return
        self.line("tagged = []")
        for f in sorted(fields, key=lambda f: f.tag or 0):
            self.line(f"value = message.{f.name}")
            with self.block(f"if value != {self.constant(f.default)}:"):
                self.line("body = bytearray()")
                self._out = "body"
                if _is_fixed(f):
                    self._pack([("value", f)])
                else:
                    self._field(f)
                self._out = "out"
                self.line(f"tagged.append(({f.tag}, body))")
        self.line("out += varint(len(tagged))")
        with self.block("for tag, body in tagged:"):
            self.line("out += varint(tag)")
            self.line("out += varint(len(body))")
            self.line("out += body")

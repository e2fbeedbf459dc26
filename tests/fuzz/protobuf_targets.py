"""Protobuf: descriptors that clients register or other registries send, and values that claim to be of one.

A value is read by the table path (by_schema_id), by the kernel and by its twin. Where they give a row, upb reads the
value with the schema as it is, too. (Texts are protoc's to read, in a process of its own: see registry/protobuf.)
"""

import random
from dataclasses import replace

import pyarrow as pa
from fuzz.avro_targets import same
from fuzz.target import MIB, Target
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message_factory import GetMessageClass
from support.protobuf import compiled
from support.protobuf_cases import file as every_kind
from support.protobuf_random import RandomProtobuf, fill

from streamlake.core.errors import Invalid, NotFound
from streamlake.registry.levels import Level
from streamlake.registry.port import Document
from streamlake.registry.protobuf.compatibility import incompatibilities
from streamlake.registry.protobuf.files import WELL_KNOWN, plain, pool_of, read_foreign, with_imports
from streamlake.registry.protobuf.printing import proto_text
from streamlake.table.formats import by_schema_id
from streamlake.table.formats.converted import Reason
from streamlake.table.formats.port import ValueReader
from streamlake.table.formats.protobuf.convert import ProtobufReader
from streamlake.table.formats.protobuf.indexes import read_prefix
from streamlake.table.formats.protobuf.schema import compile_message, message_at

FILES = [compiled(every_kind()), *(plain(RandomProtobuf(random.Random(seed)).file()) for seed in range(12))]
# The others refuse text that is not UTF-8 also where the field comes again; a table looks at the last.
_PROTO2 = {n for n, data in enumerate(FILES) if not FileDescriptorProto.FromString(data).syntax}


class _Readers:
    """Implements Schemas: every id below the number of files is known."""

    def __init__(self, native: bool) -> None:
        self._readers = [ProtobufReader(data, {}) for data in FILES]
        for reader in [] if native else self._readers:
            for index in range(len(reader._file.message_types_by_name)):
                try:
                    reader._codecs[(index,)] = replace(reader.codec((index,)), native=None)
                except Invalid:
                    continue

    def get(self, schema_id: int) -> ValueReader:
        if schema_id >= len(self._readers):
            raise NotFound(f"no schema {schema_id}")
        return self._readers[schema_id]

    def reader(self, schema_id: int) -> ProtobufReader:
        return self._readers[schema_id]


_NATIVE, _TWINS = _Readers(True), _Readers(False)


def value_seeds() -> list[bytes]:
    """A whole value of the wire format: five bytes of header, the indexes, the message."""
    rng = random.Random(3)
    seeds = []
    for schema_id in range(len(FILES)):
        for index, message in enumerate(_NATIVE.reader(schema_id)._file.message_types_by_name.values()):
            body = fill(GetMessageClass(message)(), rng).SerializePartialToString()
            if len(body) < 20_000:
                seeds.append(schema_id.to_bytes(5, "big") + b"\x02" + bytes([2 * index]) + body)
    return seeds


_NEIGHBOUR = b"\0\0\0\0\0\x02\x04"  # the row of every_kind, with nothing in it


def check_value(data: bytes) -> None:
    """One bad value is one error of its row, and never spoils its neighbours."""
    column = pa.array([data, _NEIGHBOUR, None], pa.binary())
    found = by_schema_id.convert(column, Reason.INVALID_VALUE, _NATIVE)
    same(found, by_schema_id.convert(column, Reason.INVALID_VALUE, _TWINS))
    rows = sorted(row for group in found.groups for row in group.rows.to_pylist())
    assert sorted(rows + [error.row for error in found.errors]) == [0, 1]
    assert 1 in rows
    if 0 in rows and (schema_id := int.from_bytes(data[1:5], "big")) in _PROTO2:
        path, size_bytes = read_prefix(data[5:])
        message = message_at(_NATIVE.reader(schema_id)._file, path)
        GetMessageClass(message).FromString(data[5 + size_bytes :])


def check_descriptor(data: bytes) -> None:
    """A descriptor that a pool takes is printed, compared, and a table can hold its messages or says why not."""
    try:
        read_foreign(data)
        files = list(with_imports(data, {}))
        pool = pool_of(files)
    except Invalid:
        return
    proto_text(files[-1], pool)
    proto_text(files[-1], pool, normalize=True)
    document = Document("", data)
    incompatibilities(Level.FULL_TRANSITIVE, document, [(1, document)])
    for message in pool.FindFileByName(files[-1].name).message_types_by_name.values():
        try:
            codec = compile_message(message, pool)
        except Invalid:
            continue
        assert codec.build is None or len(codec.build([])) == 0


def descriptor_seeds() -> list[bytes]:
    seeds = [plain(RandomProtobuf(random.Random(seed)).file()) for seed in range(20)]
    return [*seeds, *(plain(FileDescriptorProto.FromString(data)) for data in WELL_KNOWN.values()), b""]


TARGETS = [
    Target("protobuf value", value_seeds, check_value, memory_factor=3000),
    Target("protobuf descriptor", descriptor_seeds, check_descriptor, memory_bytes=64 * MIB, memory_factor=3000),
]

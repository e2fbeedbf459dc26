"""Keys, positions and bytes of the object WAL. Documented in docs/formats/object-wal.md.

An object is a header, a table with one entry per record, and the records' bodies one behind the other. Two more kinds
are a header alone: a FENCE takes the place of the first object that a broker did not get stored before it was taken
over, and DISCARDED says that a recovery has begun to delete what it has committed elsewhere.

Keys follow from node, broker epoch and sequence number, so a recovery computes them and never lists. Bodies are
neither copied when an object is encoded nor looked at before they are asked for. Numbers are big-endian. All input is
foreign: decoding raises Corrupt and nothing else, and makes nothing larger than what it was given.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from crc32c import crc32c

from streamlake.core.errors import Corrupt
from streamlake.s3stream.wal.port import Buffer, WalRecord

MAGIC = b"SLWO"
VERSION = 1
NONCE_BYTES = 16
_HEADER = struct.Struct(">4sBBHIIQQQ16s")
_CRC = struct.Struct(">I")
HEADER_BYTES = _HEADER.size + _CRC.size
_ENTRY = struct.Struct(">QiIQqII")
ENTRY_BYTES = _ENTRY.size

INDEX_BITS = 24
INDEX_MAX = (1 << INDEX_BITS) - 1  # records in an object
_DIGITS = 16  # of an epoch and a sequence number in a key: keys sort as their numbers do


class ObjectKind(IntEnum):
    DATA = 1
    FENCE = 2  # at the key of a data object: its epoch ends before it
    DISCARDED = 3  # at a key of its own: all records of the epoch lie in committed objects


@dataclass(frozen=True, slots=True)
class ObjectHeader:
    kind: ObjectKind
    node: int
    broker_epoch: int  # of the owner of this WAL
    seq: int  # number of the object, from 1; of a DISCARDED, where the fence is
    writer_epoch: int  # who wrote it: of DATA the broker epoch itself, else who recovers it
    nonce: bytes  # random, of one life of the writer: no two lives write the same bytes
    records: int = 0


def epoch_prefix(node: int, broker_epoch: int) -> str:
    """Of the keys of one life's WAL."""
    return f"{node_prefix(node)}{broker_epoch:0{_DIGITS}}/"


def object_wal_key(node: int, broker_epoch: int, seq: int) -> str:
    return f"{epoch_prefix(node, broker_epoch)}{seq:0{_DIGITS}}"


def discarded_key(node: int, broker_epoch: int) -> str:
    return f"{epoch_prefix(node, broker_epoch)}discarded"


def node_prefix(node: int) -> str:
    """What the keys of all epochs of a node start with."""
    return f"wal/{node}/"


def epoch_and_seq(key: str) -> tuple[int, int] | None:
    """Of the key of a data object or fence; None for any other key."""
    epoch, slash, seq = key.partition("/")[2].partition("/")[2].partition("/")
    if not slash or len(epoch) < _DIGITS or len(seq) < _DIGITS or not (epoch + seq).isdecimal():
        return None
    return int(epoch), int(seq)


def position_of(seq: int, index: int) -> int:
    """Of record `index`, from 1, of object `seq`."""
    return seq << INDEX_BITS | index


def seq_of(position: int) -> int:
    return position >> INDEX_BITS


def index_of(position: int) -> int:
    return position & INDEX_MAX


class DataEncoder:
    """Collects the records of one data object."""

    def __init__(self) -> None:
        self.records = 0
        self.size_bytes = HEADER_BYTES  # of the whole object
        self._body_bytes = 0
        self._table = bytearray()
        self._bodies: list[Buffer] = []

    def add(self, record: WalRecord) -> None:
        """`record.data` is kept as it is, and must never change."""
        end = self._body_bytes + len(record.data)
        self._table += _ENTRY.pack(  # it may fail: before anything is changed
            record.stream_id, record.stream_epoch, record.count, record.base_offset, record.max_timestamp, end,
            crc32c(record.data),
        )  # fmt: skip
        self.records += 1
        self._body_bytes = end
        self.size_bytes += ENTRY_BYTES + len(record.data)
        self._bodies.append(record.data)

    def finish(self, *, node: int, broker_epoch: int, seq: int, nonce: bytes) -> list[Buffer]:
        """The bytes of the object, in order; their sizes add up to `size_bytes`."""
        header = ObjectHeader(ObjectKind.DATA, node, broker_epoch, seq, broker_epoch, nonce, self.records)
        return [_encode_header(header, self._table), *self._bodies]


def encode_mark(header: ObjectHeader) -> bytes:
    """A FENCE or DISCARDED object, HEADER_BYTES long."""
    return _encode_header(header, b"")


def _encode_header(header: ObjectHeader, table: bytes | bytearray) -> bytes:
    """The header and the table behind it."""
    fields = _HEADER.pack(
        MAGIC, VERSION, header.kind, 0, header.node, header.records, header.broker_epoch, header.seq,
        header.writer_epoch, header.nonce,
    )  # fmt: skip
    return b"".join((fields, _CRC.pack(crc32c(table, crc32c(fields))), table))


class WalObject:
    """An object whose header and table are verified; a body is, when its record is taken."""

    def __init__(self, data: bytes) -> None:
        """Corrupt unless header and table are sound and the sizes add up."""
        self.header = _decode_header(data)
        self._bodies_at = HEADER_BYTES + self.header.records * ENTRY_BYTES
        self._data = memoryview(data)
        end = self._entry(self.header.records)[5] if self.header.records else 0
        if self._bodies_at + end != len(data):
            raise Corrupt(f"{len(data)} bytes, the table tells of {self._bodies_at + end}")

    @property
    def size_bytes(self) -> int:
        return len(self._data)

    def record(self, index: int) -> WalRecord:
        """Record `index`, from 1 to header.records, its data a view of the object; Corrupt if its bytes are damaged."""
        stream_id, stream_epoch, count, base_offset, max_timestamp, end, crc = self._entry(index)
        start = self._entry(index - 1)[5] if index > 1 else 0
        if not start <= end <= len(self._data) - self._bodies_at:
            raise Corrupt(f"record {index} is at bytes {start} to {end} of the bodies")
        body = self._data[self._bodies_at + start : self._bodies_at + end]
        if crc32c(body) != crc:
            raise Corrupt(f"record {index} fails its checksum")
        return WalRecord(stream_id, stream_epoch, base_offset, count, max_timestamp, body)

    def records(self) -> Iterator[tuple[int, WalRecord]]:
        """(position, record) of all of them, in order."""
        for index in range(1, self.header.records + 1):
            yield position_of(self.header.seq, index), self.record(index)

    def _entry(self, index: int) -> tuple[int, ...]:
        return _ENTRY.unpack_from(self._data, HEADER_BYTES + (index - 1) * ENTRY_BYTES)


def _decode_header(data: bytes) -> ObjectHeader:
    if len(data) < HEADER_BYTES:
        raise Corrupt(f"{len(data)} bytes are too few for an object of the WAL")
    magic, version, kind, _, node, records, broker_epoch, seq, writer_epoch, nonce = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise Corrupt("this is no object of a WAL")
    if version != VERSION:
        raise Corrupt(f"object WAL format {version}; this version of StreamLake reads and writes format {VERSION}")
    table_end = HEADER_BYTES + records * ENTRY_BYTES
    if records > INDEX_MAX or table_end > len(data):
        raise Corrupt(f"{len(data)} bytes are too few for {records} records")
    (crc,) = _CRC.unpack_from(data, _HEADER.size)
    view = memoryview(data)
    if crc != crc32c(view[HEADER_BYTES:table_end], crc32c(view[: _HEADER.size])):
        raise Corrupt("header and table fail their checksum")
    if kind not in tuple(ObjectKind):
        raise Corrupt(f"an object of kind {kind}, which this version of StreamLake does not know")
    if (kind == ObjectKind.DATA) != (records > 0):
        raise Corrupt(f"{records} records in an object of kind {ObjectKind(kind).name}")
    return ObjectHeader(ObjectKind(kind), node, broker_epoch, seq, writer_epoch, nonce, records)

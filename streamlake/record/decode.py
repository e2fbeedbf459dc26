"""One record batch as Python tuples: the plain twin (and oracle) of a native decoder.

`parse_records` walks the payload once and believes nothing: every length stays within its record, records fill the
payload exactly, offsets grow within the header's range. It also is the check of what producers send (validate.py),
and feeds the columns of the table path (arrow.py).
"""

from collections.abc import Callable
from typing import NamedTuple

from streamlake.record.batch import HEADER_BYTES, BatchHeader, Buffer, InvalidRecord
from streamlake.record.compression import decompress

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1
VARINT_BYTES_MAX = 10
NOT_TEXT = "surrogateescape"  # a header key should be UTF-8; bytes that are not come out as they went in

Headers = tuple[tuple[str, bytes | None], ...]
RecordTuple = tuple[int, int, bytes | None, bytes | None, Headers]


class Record(NamedTuple):
    offset: int
    timestamp: int  # milliseconds; -1: none
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


def decode_batch(header: BatchHeader, batch: Buffer, max_decompressed_bytes: int) -> list[Record]:
    """The records of one whole batch whose CRC was checked. InvalidRecord if they are not what the header claims."""
    payload = decompress(header.compression, memoryview(batch)[HEADER_BYTES:], max_decompressed_bytes)
    return [Record._make(record) for record in parse_records(header, payload)]


def parse_records(header: BatchHeader, payload: bytes) -> list[RecordTuple]:
    """(offset, timestamp, key, value, headers) of each record in an uncompressed payload; InvalidRecord."""
    records: list[RecordTuple] = []
    each_record(header, payload, records.append)
    return records


def each_record(header: BatchHeader, payload: bytes, add: Callable[[RecordTuple], None]) -> None:
    """`add` each of parse_records; InvalidRecord, and then what was added is worth nothing."""
    try:
        _parse_records(header, payload, add)
    except IndexError:
        raise InvalidRecord(f"the payload ends before the {header.count} records that its header claims") from None


def _parse_records(header: BatchHeader, payload: bytes, add: Callable[[RecordTuple], None]) -> None:
    # A varint of one byte, by far the commonest, is read in line: a call would double the time per record.
    base_offset, base_timestamp = header.base_offset, header.base_timestamp
    append_time = header.max_timestamp if header.is_log_append_time else None
    least_delta, last_delta = 0, header.last_offset_delta
    position, size = 0, len(payload)
    for _ in range(header.count):
        number = payload[position]
        position += 1
        if number > 0x7F:
            number, position = _varint(payload, position)
        end = position + (number >> 1)
        if number & 1 or end > size:
            raise InvalidRecord("a record does not lie within its batch")
        position += 1  # record attributes: unused

        number = payload[position]
        position += 1
        if number > 0x7F:
            number, position = _varint(payload, position)
        timestamp = base_timestamp + (number >> 1 ^ -(number & 1)) if append_time is None else append_time

        number = payload[position]
        position += 1
        if number > 0x7F:
            number, position = _varint(payload, position)
        delta = number >> 1
        if number & 1 or not least_delta <= delta <= last_delta:
            raise InvalidRecord(f"offset delta {number >> 1 ^ -(number & 1)} is not within {least_delta}..{last_delta}")
        least_delta = delta + 1

        number = payload[position]
        position += 1
        if number > 0x7F:
            number, position = _varint(payload, position)
        key = None
        if number != 1:
            start, position = position, position + (number >> 1)
            if number & 1 or position > end:
                raise InvalidRecord(f"a key of {number >> 1 ^ -(number & 1)} bytes does not lie within its record")
            key = payload[start:position]

        number = payload[position]
        position += 1
        if number > 0x7F:
            number, position = _varint(payload, position)
        value = None
        if number != 1:
            start, position = position, position + (number >> 1)
            if number & 1 or position > end:
                raise InvalidRecord(f"a value of {number >> 1 ^ -(number & 1)} bytes does not lie within its record")
            value = payload[start:position]

        number = payload[position]
        position += 1
        headers: Headers = ()
        if number:
            headers, position = _headers(payload, position - 1, end)
        if position != end:
            raise InvalidRecord(f"a record of {header.count} ends at byte {position}, its length says {end}")
        if not INT64_MIN <= timestamp <= INT64_MAX:
            raise InvalidRecord(f"timestamp {timestamp} does not fit 64 bits")
        add((base_offset + delta, timestamp, key, value, headers))
    if position != size:
        raise InvalidRecord(f"{size - position} bytes follow the {header.count} records that the header claims")


def _varint(payload: bytes, position: int) -> tuple[int, int]:
    """(zigzag number, position after it) of a varint of two bytes or more, whose first byte is before `position`."""
    number = payload[position - 1] & 0x7F
    byte = payload[position]
    if byte < 0x80:
        return number | byte << 7, position + 1
    for shift in range(7, 7 * VARINT_BYTES_MAX, 7):
        byte = payload[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number >> 64:
                break
            return number, position
    raise InvalidRecord("a number is longer than 64 bits")


def _bytes(payload: bytes, position: int, end: int) -> tuple[bytes | None, int]:
    """(bytes with a length before them, position after them); length -1 is null."""
    number = payload[position]
    position += 1
    if number > 0x7F:
        number, position = _varint(payload, position)
    if number & 1:
        if number != 1:
            raise InvalidRecord(f"a key or value has length {-(number + 1 >> 1)}")
        return None, position
    after = position + (number >> 1)
    if after > end:
        raise InvalidRecord(f"a key or value of {number >> 1} bytes does not lie within its record")
    return payload[position:after], after


def _headers(payload: bytes, position: int, end: int) -> tuple[Headers, int]:
    number = payload[position]
    position += 1
    if number > 0x7F:
        number, position = _varint(payload, position)
    if number & 1 or number > end - position:  # a header takes two bytes at least
        raise InvalidRecord(f"{number >> 1 ^ -(number & 1)} headers do not fit a record")
    headers = []
    for _ in range(number >> 1):
        key, position = _bytes(payload, position, end)
        if key is None:
            raise InvalidRecord("a header has no key")
        value, position = _bytes(payload, position, end)
        headers.append((key.decode(errors=NOT_TEXT), value))
    return tuple(headers), position

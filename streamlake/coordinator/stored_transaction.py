"""A transaction as it is stored: a row of `txn`, whose members are bytes of this module.

The blob is a header, a MessagePack array of partitions by topic and of groups, and a CRC-32C
(docs/formats/transaction-members.md).
"""

import struct
from uuid import UUID

import msgspec
from crc32c import crc32c

from streamlake.cluster.store.transactions import TxnRow
from streamlake.coordinator.transaction import Participant, State, Transaction
from streamlake.core.errors import Corrupt

MAGIC = b"SLTM"
VERSION = 1
_HEAD = struct.Struct(">4sH")  # magic, version
_CRC = struct.Struct(">I")


class _Members(msgspec.Struct, frozen=True, array_like=True):
    topics: list[tuple[bytes, list[int]]]  # id, partitions
    groups: list[str]


def row_of(transactional_id: str, txn: Transaction, updated_ms: int) -> TxnRow:
    return TxnRow(
        transactional_id=transactional_id,
        producer_id=txn.producer_id,
        epoch=txn.epoch,
        last_id=txn.last_id,
        last_epoch=txn.last_epoch,
        next_id=txn.next_id,
        number=txn.number,
        state=txn.state.value,
        version=txn.version,
        timeout_ms=txn.timeout_ms,
        started_ms=txn.started_ms,
        updated_ms=updated_ms,
        members=_encode(txn),
    )


def transaction_of(row: TxnRow) -> Transaction:
    """Corrupt if the row is damaged."""
    members = _decode(row.members)
    partitions = (Participant(UUID(bytes=topic), index) for topic, found in members.topics for index in found)
    try:
        state = State(row.state)
    except ValueError:
        raise Corrupt(f"transactional id {row.transactional_id} has the unknown state {row.state}") from None
    return Transaction(
        producer_id=row.producer_id,
        epoch=row.epoch,
        timeout_ms=row.timeout_ms,
        last_id=row.last_id,
        last_epoch=row.last_epoch,
        next_id=row.next_id,
        number=row.number,
        state=state,
        version=row.version,
        started_ms=row.started_ms,
        partitions=frozenset(partitions),
        groups=frozenset(members.groups),
    )


def _encode(txn: Transaction) -> bytes:
    topics: dict[bytes, list[int]] = {}
    for topic_id, index in sorted(txn.partitions):
        topics.setdefault(topic_id.bytes, []).append(index)
    body = _HEAD.pack(MAGIC, VERSION) + msgspec.msgpack.encode(_Members(list(topics.items()), sorted(txn.groups)))
    return body + _CRC.pack(crc32c(body))


def _decode(blob: bytes) -> _Members:
    body, crc = blob[: -_CRC.size], blob[-_CRC.size :]
    if len(body) < _HEAD.size or body[:4] != MAGIC or _CRC.pack(crc32c(body)) != crc:
        raise Corrupt("the members of a transaction are damaged: magic or CRC-32C is wrong")
    _, version = _HEAD.unpack_from(body)
    if version != VERSION:
        raise Corrupt(f"the members of a transaction have version {version}, this program reads {VERSION}: upgrade it")
    try:
        return msgspec.msgpack.decode(body[_HEAD.size :], type=_Members)
    except msgspec.DecodeError as error:
        raise Corrupt(f"the members of a transaction cannot be read: {error}") from None

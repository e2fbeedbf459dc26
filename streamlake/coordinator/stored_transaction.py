"""A transaction as it is stored: a row of `txn`, whose members are bytes of this module.

The blob is a MessagePack array of partitions by topic and of groups, sealed (docs/formats/transaction-members.md).
"""

from uuid import UUID

import msgspec

from streamlake.cluster.store.transactions import TxnRow
from streamlake.coordinator.sealed import seal, unseal
from streamlake.coordinator.transaction import Participant, State, Transaction
from streamlake.core.errors import Corrupt

MAGIC = b"SLTM"
VERSION = 1


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
    members = unseal(row.members, MAGIC, VERSION, _Members, "the members of a transaction")
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
    return seal(MAGIC, VERSION, _Members(list(topics.items()), sorted(txn.groups)))

import struct
from dataclasses import replace
from uuid import UUID

import msgspec
import pytest
from crc32c import crc32c

from streamlake.coordinator.stored_transaction import row_of, transaction_of
from streamlake.coordinator.transaction import Participant, State, Transaction
from streamlake.core.errors import Corrupt

TXN = Transaction(
    producer_id=7,
    epoch=3,
    timeout_ms=60_000,
    last_id=5,
    last_epoch=2,
    next_id=9,
    number=4,
    state=State.PREPARE_COMMIT,
    version=2,
    started_ms=1_000,
    partitions=frozenset({Participant(UUID(int=2), 5), Participant(UUID(int=1), 1), Participant(UUID(int=1), 0)}),
    groups=frozenset({"h", "g"}),
)


def test_what_is_stored_comes_back() -> None:
    row = row_of("t", TXN, 2_000)
    assert (row.transactional_id, row.updated_ms, row.state) == ("t", 2_000, "PrepareCommit")
    assert transaction_of(row) == TXN
    assert transaction_of(row_of("t", Transaction(1, 0, 5), 0)) == Transaction(1, 0, 5)


def test_the_bytes_of_the_members() -> None:
    """docs/formats/transaction-members.md."""
    body = b"SLTM\x00\x01" + msgspec.msgpack.encode(
        [[[UUID(int=1).bytes, [0, 1]], [UUID(int=2).bytes, [5]]], ["g", "h"]]
    )
    assert row_of("t", TXN, 0).members == body + struct.pack(">I", crc32c(body))


def sealed(body: bytes) -> bytes:
    return body + struct.pack(">I", crc32c(body))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (b"", "damaged"),
        (sealed(b"SLGM\x00\x01\x92\x90\x90"), "damaged"),
        (sealed(b"SLTM\x00\x01\x92\x90\x90")[:-1] + b"\x00", "damaged"),
        (sealed(b"SLTM\x00\x02\x92\x90\x90"), "version 2"),
        (sealed(b"SLTM\x00\x01\x01"), "cannot be read"),
        (sealed(b"SLTM\x00\x01"), "cannot be read"),
    ],
)
def test_damage_is_seen(members: bytes, message: str) -> None:
    with pytest.raises(Corrupt, match=message):
        transaction_of(replace(row_of("t", TXN, 0), members=members))


def test_a_state_that_is_not_known() -> None:
    with pytest.raises(Corrupt, match="unknown state"):
        transaction_of(replace(row_of("t", TXN, 0), state="Dead"))

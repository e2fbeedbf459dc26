"""JoinTransactions: what other brokers ask the coordinator of a transactional id."""

from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from streamlake.cluster.secret import Life
from streamlake.coordinator.transaction import V2, Participant, Producer, TxnError
from streamlake.handlers.join_transactions import handle
from streamlake.protocol.broker_messages.join_transactions import Join, JoinTransactionsRequest
from streamlake.protocol.errors import ErrorCode

TOPIC = UUID(int=5)


class Known:
    """Answers by the partition's number, and keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def add(self, *asked: Any) -> tuple[TxnError, int]:
        self.asked.append(("add", *asked))
        return TxnError.NONE, 7

    async def verify(self, *asked: Any) -> tuple[TxnError, int]:
        self.asked.append(("verify", *asked))
        return TxnError.TRANSACTION_ABORTABLE, -1


async def test_each_is_answered_in_its_place() -> None:
    known = Known()
    joins = (
        Join("t", 3, 1, may_add=True, topic_id=TOPIC, partition=4),
        Join("t", 3, 1, may_add=False, topic_id=TOPIC, partition=5),
        Join("u", 4, 0, may_add=True, group_id="g"),
        Join("u", 4, 0),
    )
    ctx: Any = SimpleNamespace(transactions=known)
    exchange: Any = SimpleNamespace(body=JoinTransactionsRequest(joins), peer=Life(2, 1))
    answer = await handle(ctx, exchange)
    assert [(r.error_code, r.number) for r in answer.results] == [
        (0, 7),
        (ErrorCode.TRANSACTION_ABORTABLE, -1),
        (0, 7),
        (ErrorCode.INVALID_REQUEST, -1),
    ]
    assert known.asked == [
        ("add", "t", Producer(3, 1), (Participant(TOPIC, 4),), (), V2),
        ("verify", "t", Producer(3, 1), Participant(TOPIC, 5)),
        ("add", "u", Producer(4, 0), (), ("g",), V2),
    ]


@pytest.mark.parametrize("joins", [(), (Join("t", 3, 1, may_add=True, topic_id=TOPIC, partition=4),)])
async def test_who_is_no_broker_is_refused(joins: tuple[Join, ...]) -> None:
    known = Known()
    ctx: Any = SimpleNamespace(transactions=known)
    exchange: Any = SimpleNamespace(body=JoinTransactionsRequest(joins), peer=None)
    answer = await handle(ctx, exchange)
    assert (answer.error_code, answer.results) == (ErrorCode.CLUSTER_AUTHORIZATION_FAILED, ())
    assert known.asked == []

"""ListPartitionReassignments: what is on its way from one broker to another."""

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from support.wire import Client, Topic

from streamlake.cluster.store.administration import Move
from streamlake.core.errors import Unavailable
from streamlake.handlers.list_partition_reassignments import handle
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsTopics,
    OngoingPartitionReassignment,
)

A, B, GONE = UUID(int=1), UUID(int=2), UUID(int=3)
ALL = [Move(B, 0, 1, 2), Move(A, 1, 0, 2), Move(A, 3, 2, None), Move(GONE, 0, 1, 2)]


@dataclass
class Cluster:
    """Two topics, and moves under way."""

    error: Exception | None = None

    async def moves(self) -> list[Move]:
        if self.error is not None:
            raise self.error
        return ALL

    def by_id(self, topic_id: UUID) -> Any:
        names = {A: "a", B: "b"}
        return SimpleNamespace(name=names[topic_id]) if topic_id in names else None

    def ask(self, *topics: tuple[str, tuple[int, ...]], all: bool = False) -> Any:
        asked = None if all else tuple(ListPartitionReassignmentsTopics(*topic) for topic in topics)
        context: Any = SimpleNamespace(administration=self, topics=self)
        exchange: Any = SimpleNamespace(body=ListPartitionReassignmentsRequest(topics=asked))
        return asyncio.run(handle(context, exchange))


def test_all_that_move() -> None:
    a, b = Cluster().ask(all=True).topics
    assert (a.name, b.name) == ("a", "b")
    assert a.partitions == (
        OngoingPartitionReassignment(1, (2, 0), (2,), (0,)),
        OngoingPartitionReassignment(3, (2,), (), (2,)),
    )
    assert b.partitions == (OngoingPartitionReassignment(0, (2, 1), (2,), (1,)),)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ([("a", (1, 2))], {"a": [1]}),
        ([("a", (0,)), ("b", (0,)), ("c", (0,))], {"b": [0]}),
        ([], {}),
    ],
)
def test_those_that_are_asked_for(asked: Any, found: dict[str, list[int]]) -> None:
    topics = Cluster().ask(*asked).topics
    assert {t.name: [p.partition_index for p in t.partitions] for t in topics} == found


def test_the_metadata_store_is_away() -> None:
    answer = Cluster(Unavailable("away")).ask(all=True)
    assert (answer.error_code, answer.error_message, answer.topics) == (ErrorCode.REQUEST_TIMED_OUT, "away", ())


def test_one_broker_moves_nothing(client: Client, topic: Topic) -> None:
    for topics in (None, (ListPartitionReassignmentsTopics(topic.name, (0,)),)):
        request = ListPartitionReassignmentsRequest(topics=topics)
        answer = client.newest(ApiKey.LIST_PARTITION_REASSIGNMENTS, request)
        assert (answer.error_code, answer.topics) == (0, ())

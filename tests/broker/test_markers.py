"""Markers reach the leaders of partitions; the leaders are stood in for by their answers."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from support.wait import turns

from streamlake.broker.markers import MarkerSender
from streamlake.coordinator.transaction import Participant, Producer
from streamlake.coordinator.transactions import Ending
from streamlake.core.errors import Unavailable
from streamlake.core.tasks import Supervisor
from streamlake.protocol.broker_messages.write_markers import (
    MarkerResult,
    PartitionResult,
    TopicResult,
    WriteMarkersRequest,
    WriteMarkersResponse,
)
from streamlake.protocol.errors import ErrorCode

A, B = UUID(int=1), UUID(int=2)
P0, P1, P2, Q0 = Participant(A, 0), Participant(A, 1), Participant(A, 2), Participant(B, 0)
ENDING = Ending("t", Producer(7, 3), 5, 2, True, 2)


class Leader:
    """A broker that leads partitions."""

    def __init__(self) -> None:
        self.requests: list[WriteMarkersRequest] = []
        self.codes: dict[Participant, ErrorCode] = {}
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def write_markers(self, request: WriteMarkersRequest) -> WriteMarkersResponse:
        self.requests.append(request)
        await self.gate.wait()
        if self.error:
            raise self.error
        return WriteMarkersResponse(
            tuple(
                MarkerResult(
                    tuple(
                        TopicResult(
                            topic.topic_id,
                            tuple(
                                PartitionResult(i, self.codes.get(Participant(topic.topic_id, i), ErrorCode.NONE))
                                for i in topic.partitions
                            ),
                        )
                        for topic in marker.topics
                    )
                )
                for marker in request.markers
            )
        )


class Site:
    def __init__(self) -> None:
        self.leaders = {1: Leader(), 2: Leader()}
        self.led = {P0: 1, P1: 2, P2: 2, Q0: 1}
        self.topics = {A: SimpleNamespace(id=A), B: SimpleNamespace(id=B)}
        self.is_caught_up = True
        self.tasks = Supervisor()
        topics: Any = SimpleNamespace(by_id=self.topics.get)
        peers: Any = SimpleNamespace(of=self.peer)
        self.markers = MarkerSender(
            1,
            topics,
            self.catch_up,
            lambda topic, index: self.led[Participant(topic.id, index)],
            peers,
            self.leaders[1].write_markers,
            self.tasks,
        )

    def peer(self, node: int) -> Leader:
        assert node != 1, "this broker asks itself directly"
        if node not in self.leaders:
            raise Unavailable("it does not serve")
        return self.leaders[node]

    async def catch_up(self) -> bool:
        return self.is_caught_up


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    yield site
    await site.tasks.stop()


async def test_each_leader_gets_its_own(site: Site) -> None:
    assert await site.markers.write(ENDING, [P0, P1, P2, Q0]) == {P0, P1, P2, Q0}
    ((here,),) = (request.markers for request in site.leaders[1].requests)
    ((there,),) = (request.markers for request in site.leaders[2].requests)
    assert [(topic.topic_id, topic.partitions) for topic in here.topics] == [(A, (0,)), (B, (0,))]
    assert [(topic.topic_id, topic.partitions) for topic in there.topics] == [(A, (1, 2))]
    for marker in (here, there):
        assert (marker.producer_id, marker.producer_epoch, marker.number) == (7, 3, 5)
        assert (marker.coordinator_epoch, marker.commit, marker.transaction_version) == (2, True, 2)
    assert (site.markers.written, site.markers.failed) == (4, 0)


async def test_what_is_not_written_is_left_over(site: Site) -> None:
    site.leaders[2].codes[P2] = ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert await site.markers.write(ENDING, [P0, P1, P2]) == {P0, P1}
    site.leaders[1].error = Unavailable("no")
    assert await site.markers.write(ENDING, [P0, P1]) == {P1}
    assert site.markers.failed == 2


@pytest.mark.parametrize("node", [-1, 9])
async def test_a_partition_without_a_leader_is_left_over(site: Site, node: int) -> None:
    site.led[P0] = node
    assert await site.markers.write(ENDING, [P0, P1]) == {P1}


async def test_a_topic_that_was_deleted_is_over(site: Site) -> None:
    del site.topics[B]
    assert await site.markers.write(ENDING, [P0, Q0]) == {P0, Q0}
    site.is_caught_up = False
    assert await site.markers.write(ENDING, [P0, Q0]) == {P0}, "it may be one that is not known here yet"


async def test_markers_that_come_together_share_requests(site: Site) -> None:
    site.leaders[2].gate.clear()
    writing = [asyncio.create_task(site.markers.write(ENDING._replace(number=n), [P1])) for n in range(10)]
    await turns(10)
    site.leaders[2].gate.set()
    assert await asyncio.gather(*writing) == [{P1}] * 10
    assert len(site.leaders[2].requests) <= 2

"""Brings the markers of transactions to the leaders of their partitions, wherever these are.

One attempt a call: who leads a partition may be known wrong or not at all, so the coordinator
(coordinator/transactions.py) tries again until each partition has its marker. Markers for one broker that come while a
request to it is under way share the next request.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

import structlog

from streamlake.broker.batches import Batches
from streamlake.broker.peers import Peers
from streamlake.cluster.store.topic_rows import TopicInfo
from streamlake.cluster.topics import Topics
from streamlake.coordinator.transaction import Participant
from streamlake.coordinator.transactions import Ending
from streamlake.core.errors import StreamLakeError
from streamlake.core.tasks import Supervisor
from streamlake.protocol.broker_messages.write_markers import (
    Marker,
    MarkerTopic,
    WriteMarkersRequest,
    WriteMarkersResponse,
)
from streamlake.protocol.errors import ErrorCode
from streamlake.telemetry.metric import Metric, counter

PARCELS_PER_REQUEST_MAX = 500
log = structlog.get_logger(__name__)

Write = Callable[[WriteMarkersRequest], Awaitable[WriteMarkersResponse]]
LeaderOf = Callable[[TopicInfo, int], int]
CatchUp = Callable[[], Awaitable[bool]]


class _Parcel(NamedTuple):
    """Markers of one transaction for the partitions of one broker."""

    ending: Ending
    partitions: Sequence[Participant]


class MarkerSender:
    """Implements Markers. `leader_of(topic, partition)`: the node that leads it, -1 if that is nobody. `locally`: how
    this broker writes markers in the partitions that it leads."""

    def __init__(
        self,
        node: int,
        topics: Topics,
        catch_up: CatchUp,
        leader_of: LeaderOf,
        peers: Peers,
        locally: Write,
        tasks: Supervisor,
    ) -> None:
        """`node`: this broker. `catch_up`: of topics."""
        self.written = 0
        self.failed = 0
        self._node = node
        self._topics = topics
        self._catch_up = catch_up
        self._leader_of = leader_of
        self._peers = peers
        self._locally = locally
        self._batches = Batches(self._ask, PARCELS_PER_REQUEST_MAX, tasks)

    def metrics(self) -> Iterable[Metric]:
        return (
            counter("streamlake_transaction_markers", "Ends of transactions in partitions, sent to their leaders.",
                lambda: self.written),
            counter("streamlake_transaction_markers_failed", "Of these, the ones that had to be sent again.",
                lambda: self.failed),
        )  # fmt: skip

    async def write(self, ending: Ending, partitions: Collection[Participant]) -> Collection[Participant]:
        over: set[Participant] = set()
        by_node: dict[int, list[Participant]] = {}
        if any(self._topics.by_id(topic_id) is None for topic_id, _ in partitions) and await self._catch_up():
            # What the image does not have now was deleted since it joined the transaction.
            over |= {each for each in partitions if self._topics.by_id(each.topic_id) is None}
        for participant in sorted(set(partitions) - over):
            topic = self._topics.by_id(participant.topic_id)
            if topic is not None and (node := self._leader_of(topic, participant.partition)) >= 0:
                by_node.setdefault(node, []).append(participant)
        parcels = ((node, _Parcel(ending, some)) for node, some in by_node.items())
        for answer in await asyncio.gather(*(self._batches.answer(*each) for each in parcels), return_exceptions=True):
            if isinstance(answer, StreamLakeError):
                log.info("markers of transactions did not reach their broker", error=str(answer))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                over |= answer
        self.written += len(over)
        self.failed += len(partitions) - len(over)
        return over

    async def _ask(self, node: int, parcels: Sequence[_Parcel]) -> list[frozenset[Participant]]:
        request = WriteMarkersRequest(tuple(_marker(parcel) for parcel in parcels))
        write = self._locally if node == self._node else self._peers.of(node).write_markers
        answer = await write(request)
        return [
            frozenset(
                Participant(topic.topic_id, partition.index)
                for topic in result.topics
                if topic.topic_id is not None
                for partition in topic.partitions
                # Success means that the marker is durable there, or that there was nothing to end.
                if partition.error_code == ErrorCode.NONE
            )
            for result in answer.markers
        ]


def _marker(parcel: _Parcel) -> Marker:
    topics: dict[UUID, list[int]] = {}
    for topic_id, index in parcel.partitions:
        topics.setdefault(topic_id, []).append(index)
    ending = parcel.ending
    return Marker(
        producer_id=ending.producer.id,
        producer_epoch=ending.producer.epoch,
        number=ending.number,
        coordinator_epoch=ending.coordinator_epoch,
        commit=ending.commit,
        transaction_version=ending.version,
        topics=tuple(MarkerTopic(topic_id, tuple(indexes)) for topic_id, indexes in topics.items()),
    )

"""Partitions on their way from one broker to another: who asks for one is refused only when it is known who has it.

A client that is refused without the name of the leader asks for metadata, and most pause for 100 ms before they try
again. One that is told the leader and its epoch goes there at once (KIP-951). So the refusal of a broker that has just
closed a partition, or that is about to open it, waits for a moment. What takes longer than usual is refused at once:
answers about other partitions would wait behind it, because answers leave in the order of the requests.
"""

import asyncio
from collections.abc import Iterable
from uuid import UUID

from streamlake.cluster.brokers import Brokers
from streamlake.cluster.topics import TopicChange, Topics
from streamlake.core.deadlines import Deadlines
from streamlake.handlers.leaders import NOBODY, opener_of
from streamlake.log.manager import LogManager

REFUSAL_WAIT_S = 0.5
HANDOVER_S = 1.0  # from its beginning on: longer than nearly all take


class _Handover:
    """`over` is done when somebody has the partition, or when nobody waits for it any more."""

    def __init__(self) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def time_is_up(self) -> None:
        self.end()

    def end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


class Handovers:
    def __init__(self, brokers: Brokers, topics: Topics, logs: LogManager, deadlines: Deadlines) -> None:
        self.brokers = brokers
        self.logs = logs
        self._topics = topics
        self._deadlines = deadlines
        self._under_way: dict[UUID, dict[int, _Handover]] = {}  # by topic and partition, until somebody has it
        topics.listeners.append(self._topic_changed)

    def begin(self, topic_id: UUID, index: int) -> None:
        """This broker has closed the partition, or has to open it. It begins once, until somebody has it."""
        of_topic = self._under_way.setdefault(topic_id, {})
        if index not in of_topic:
            of_topic[index] = handover = _Handover()
            self._deadlines.add(handover, HANDOVER_S)

    def look(self, topic_ids: Iterable[UUID]) -> None:
        """Partitions of these topics were opened here, or elsewhere."""
        for topic_id in topic_ids:
            of_topic = self._under_way.get(topic_id, {})
            for index in [index for index in of_topic if self._is_over(topic_id, index)]:
                of_topic.pop(index).end()
            if not of_topic:
                self._under_way.pop(topic_id, None)

    def until_over(self, topic_id: UUID, index: int) -> "asyncio.Future[None] | None":
        """Done when a refusal need not wait any more; None if it need not wait at all. Shared: not to be cancelled."""
        handover = self._under_way.get(topic_id, {}).get(index)
        return None if handover is None or handover.over.done() else handover.over

    def _topic_changed(self, change: TopicChange) -> None:
        self.look(topic.id for topic in (change.before, change.after) if topic is not None)

    def _is_over(self, topic_id: UUID, index: int) -> bool:
        topic = self._topics.by_id(topic_id)
        return topic is None or opener_of(self, topic, index) is not NOBODY

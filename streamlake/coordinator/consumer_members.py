"""Members of consumer groups (KIP-848): their heartbeats, and what changes of topics mean to them.

The groups themselves are in groups.py beside the classic ones: an id is that of one group.
"""

import asyncio
from collections.abc import Collection

import structlog

from streamlake.cluster.topics import TopicChange, Topics
from streamlake.coordinator.classic.api import GroupError
from streamlake.coordinator.consumer.api import JOIN_EPOCH, HeartbeatAnswer, HeartbeatRequest, TopicShape
from streamlake.coordinator.consumer.assignors import ASSIGNORS
from streamlake.coordinator.consumer.group import ConsumerGroup
from streamlake.coordinator.consumer.patterns import matching
from streamlake.coordinator.groups import Groups
from streamlake.core.errors import Invalid
from streamlake.core.tasks import Executor, Supervisor

log = structlog.get_logger(__name__)

GROUPS_AT_ONCE = 100  # between two turns of the loop


class ConsumerMembers:
    """`executor` matches patterns."""

    def __init__(self, groups: Groups, topics: Topics, executor: Executor) -> None:
        self._groups = groups
        self._topics = topics
        self._executor = executor
        self._changed = asyncio.Event()  # topics, or which groups are here
        self._tasks = Supervisor()

    async def start(self) -> None:
        self._topics.listeners.append(self._topic_changed)
        self._groups.loaded.append(self._changed.set)
        self._changed.set()
        self._tasks.start("topics of consumer groups", self._follow_forever())

    async def stop(self) -> None:
        self._topics.listeners[:] = [each for each in self._topics.listeners if each != self._topic_changed]
        await self._tasks.stop()

    async def heartbeat(self, request: HeartbeatRequest) -> HeartbeatAnswer:
        """Waits until what it is answered is durable."""
        if request.assignor is not None and request.assignor not in ASSIGNORS:
            text = f"there is no assignor {request.assignor}: use one of {', '.join(ASSIGNORS)}"
            return HeartbeatAnswer(GroupError.UNSUPPORTED_ASSIGNOR, text)
        matched: frozenset[str] | None = None
        if request.regex and not self._groups.knows_pattern(request.group_id, request.regex):
            try:
                matched = await self._match(request.regex)
            except Invalid as error:
                return HeartbeatAnswer(GroupError.INVALID_REGULAR_EXPRESSION, str(error))
        entry = self._groups.of_members(request.group_id, request.size_bytes, joins=request.epoch == JOIN_EPOCH)
        if isinstance(entry, GroupError):
            unknown = entry is GroupError.GROUP_ID_NOT_FOUND
            text = f"group {request.group_id} is not a consumer group, or has members of the classic protocol"
            return HeartbeatAnswer(entry, text if unknown else None)
        return await self._groups.consumer_heartbeat(entry, request, matched)

    # --- topics

    def _topic_changed(self, change: TopicChange) -> None:
        before, after = change.before, change.after
        if before is None or after is None or len(before.partitions) != len(after.partitions):
            self._changed.set()

    async def _match(self, pattern: str) -> frozenset[str]:
        """As of now: what changes while it is matched is matched again."""
        while True:
            revision, names = self._topics.revision, [topic.name for topic in self._topics.all()]
            found = await self._executor.run(matching, pattern, names)
            if self._topics.revision == revision:
                return found

    async def _follow_forever(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._follow()

    async def _follow(self) -> None:
        """Tell all groups which topics there are. What changes meanwhile sets `_changed` again."""
        names = [topic.name for topic in self._topics.all()]
        patterns = {pattern for machine in self._machines() for pattern in machine.patterns}
        matched: dict[str, frozenset[str]] = {}
        for pattern in sorted(patterns):
            try:
                matched[pattern] = await self._executor.run(matching, pattern, names)
            except Invalid as error:  # it was stored by a program that knew more; its topics stay as they are
                log.error("a stored pattern is none any more", pattern=pattern, error=str(error))
        for number, entry in enumerate(self._groups.consumer_entries()):
            if number % GROUPS_AT_ONCE == GROUPS_AT_ONCE - 1:
                await asyncio.sleep(0)
            self._groups.topics_changed(entry, matched)

    def _machines(self) -> Collection[ConsumerGroup]:
        return [entry.machine for entry in self._groups.consumer_entries() if isinstance(entry.machine, ConsumerGroup)]


def shape_of(topics: Topics, name: str) -> TopicShape | None:
    topic = topics.get(name)
    return None if topic is None else TopicShape(topic.id.bytes, len(topic.partitions))

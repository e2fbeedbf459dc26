"""The partitions of this broker: opened, configured and closed as the topics say.

Topics change in the metadata store; this follows, in order, one change at a time. Operations on topics and configs
await `settled`, so that what they announce can be used. Holds of tables are set before a partition is first looked at
by retention.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from uuid import UUID

import structlog

from streamlake.cluster.broker_configs import BrokerConfigs
from streamlake.cluster.config.topic import TOPIC_CONFIGS
from streamlake.cluster.store.table_progress import TableProgress
from streamlake.cluster.topics import TopicChange, TopicInfo, Topics
from streamlake.core.errors import Corrupt, NotFound, StreamLakeError
from streamlake.core.tasks import Supervisor
from streamlake.log.manager import LogManager, Opening
from streamlake.log.partition import Partition
from streamlake.log.settings import LogSettings
from streamlake.s3stream.streams import Streams

log = structlog.get_logger(__name__)

TABLE_HOLD = "table"
REOPEN_INTERVAL_S = 5.0
PARTITIONS_PER_SLICE = 256  # with nothing due, before others may run: a quarter of a millisecond


class Partitions:
    """`start` opens all; then `topic_changed` and `configs_changed` are told what is new."""

    def __init__(
        self,
        topics: Topics,
        configs: BrokerConfigs,
        progress: TableProgress,
        streams: Streams,
        logs: LogManager,
        tasks: Supervisor,
        retention_interval_s: float = 30.0,
    ) -> None:
        self._topics = topics
        self._configs = configs
        self._progress = progress
        self._streams = streams
        self._logs = logs
        self._tasks = tasks
        self._retention_interval_s = retention_interval_s
        self._stale: dict[UUID, None] = {}  # topics to look at, in order
        self._failed: dict[UUID, None] = {}  # topics that could not be looked at, to try again
        self._unopened: dict[tuple[UUID, int], StreamLakeError] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._opening = asyncio.Lock()  # retention must not see a partition before its hold is set

    @property
    def unopened(self) -> int:
        """How many partitions could not be opened."""
        return len(self._unopened)

    async def start(self) -> None:
        await self._apply([topic.id for topic in self._topics.all()])
        self._topics.listeners.append(self.topic_changed)
        self._configs.listeners.append(lambda _keys: self._look_again(t.id for t in self._topics.all()))
        self._topics.followers.append(self.settled)
        self._configs.followers.append(self.settled)
        self._tasks.start("partitions", self._follow())
        self._tasks.start("retention", self._retention())

    def topic_changed(self, change: TopicChange) -> None:
        for topic in (change.before, change.after):
            if topic is not None:
                self._look_again([topic.id])

    async def settled(self) -> None:
        """All changes so far are applied: partitions that can be opened are open."""
        await self._idle.wait()

    def _look_again(self, topic_ids: Iterable[UUID]) -> None:
        for topic_id in topic_ids:
            self._stale[topic_id] = None
        if self._stale:
            self._idle.clear()
            self._wake.set()

    async def _follow(self) -> None:
        while True:
            again = self._failed | {topic_id: None for (topic_id, _), e in self._unopened.items() if _may_pass(e)}
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REOPEN_INTERVAL_S if again else None):
                    await self._wake.wait()
            self._wake.clear()
            stale, self._stale = again | self._stale, {}
            try:
                await self._apply(list(stale))
                self._failed = {}
            except StreamLakeError as error:
                log.warning("topics not followed, trying again", topics=len(stale), error=str(error))
                self._failed = stale
            if not self._stale:
                self._idle.set()  # after a failure too: nobody is kept waiting, clients see LEADER_NOT_AVAILABLE

    async def _apply(self, topic_ids: list[UUID]) -> None:
        """Make what is open for these topics equal to what the image says."""
        found = [(topic_id, self._topics.by_id(topic_id)) for topic_id in topic_ids]
        opened: dict[UUID, list[Partition]] = {}
        for partition in self._logs:
            opened.setdefault(partition.topic_id, []).append(partition)
        for topic_id, topic in found:
            if topic is None:
                self._streams.delete(self._logs.close_topic(topic_id))
                self._unopened = {key: e for key, e in self._unopened.items() if key[0] != topic_id}
        live = [topic for _, topic in found if topic is not None]
        async with self._opening:
            await self._open_missing(live)
            await self._set_holds(live)
        settings = self._settings(live)
        for topic in live:
            for partition in opened.get(topic.id, ()):
                partition.settings = settings[topic.id]

    async def _open_missing(self, topics: list[TopicInfo]) -> None:
        wanted = [(t, p) for t in topics for p in t.partitions if self._logs.get(t.id, p.index) is None]
        if not wanted:
            return
        try:
            streams = await self._streams.open([p.stream_id for _, p in wanted])
        except NotFound:
            # A topic was deleted meanwhile, and its change is on its way here. The others must not wait for it.
            if len(topics) > 1:
                for topic in topics:
                    await self._open_missing([topic])
            return
        settings = self._settings(topics)
        results = await self._logs.open(
            [Opening(s, t.id, p.index, settings[t.id]) for s, (t, p) in zip(streams, wanted, strict=True)]
        )
        for (topic, info), result in zip(wanted, results, strict=True):
            self._unopened.pop((topic.id, info.index), None)
            if isinstance(result, StreamLakeError):
                self._unopened[topic.id, info.index] = result

    async def _set_holds(self, topics: list[TopicInfo]) -> None:
        """Retention keeps what a table has not translated, from the moment the table was enabled."""
        tables = {topic.id for topic in topics if topic.is_table}
        holds = {}
        if tables:
            holds = {(p.topic_id, p.partition): p.hold_offset for p in await self._progress.load()}
        for topic in topics:
            for info in topic.partitions:
                partition = self._logs.get(topic.id, info.index)
                if partition is None:
                    continue
                hold = holds.get((topic.id, info.index)) if topic.id in tables else None
                if hold is None:
                    partition.release(TABLE_HOLD)
                else:
                    partition.hold(TABLE_HOLD, hold)

    def _settings(self, topics: Iterable[TopicInfo]) -> dict[UUID, LogSettings]:
        """Of each topic. Most are configured alike, and to look everything up takes a quarter of a millisecond."""
        known: dict[frozenset[tuple[str, str]], LogSettings] = {}
        settings = {}
        for topic in topics:
            configs = frozenset(topic.configs.items())
            if configs not in known:
                effective = TOPIC_CONFIGS.effective(self._configs.topic_layers(topic.configs))
                producers = str(self._configs.value("producer.id.expiration.ms"))
                known[configs] = LogSettings.from_configs(effective | {"producer.id.expiration.ms": producers})
            settings[topic.id] = known[configs]
        return settings

    async def _retention(self) -> None:
        while True:
            await asyncio.sleep(self._retention_interval_s)
            for number, partition in enumerate(self._logs):
                if not self._logs.is_due(partition):
                    if number % PARTITIONS_PER_SLICE == 0:
                        await asyncio.sleep(0)
                    continue
                # One at a time, so that a store that answers slowly does not keep topics from being opened.
                async with self._opening:
                    # Not while a change is not applied: it may be the hold of a table that was just enabled.
                    if not self._failed and not self._stale:
                        await self._logs.retain(partition)
                await asyncio.sleep(0)  # thousands of partitions in one go would block the loop


def _may_pass(error: StreamLakeError) -> bool:
    return not isinstance(error, Corrupt)

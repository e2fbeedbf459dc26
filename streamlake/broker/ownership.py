"""The partitions of this broker: what it has open is made equal to what the topics assign to it.

Topics change in the metadata store; this follows, in order, one change at a time. Operations on topics and configs
await `settled`, so that what they announce can be used. Holds of tables are set before a partition is first looked at
by retention.

    assigned here, not open     opened as soon as nobody owns its stream any more: the former owner has closed it, or
                                the WAL of a dead one is drained. Until then it is tried again and again
    open here, assigned away    uploaded while it still serves; then appends end, what is in flight becomes durable and
                                is uploaded, too, and nobody owns the stream
"""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from uuid import UUID

import structlog

from streamlake.cluster.broker_configs import BrokerConfigs
from streamlake.cluster.config.topic import TOPIC_CONFIGS
from streamlake.cluster.store.table_progress import TableProgress
from streamlake.cluster.store.topic_rows import PartitionInfo, TopicInfo
from streamlake.cluster.store.wals import WalKey, Wals
from streamlake.cluster.topics import TopicChange, Topics
from streamlake.core.errors import Corrupt, NotFound, StreamLakeError
from streamlake.core.retry import TRANSIENT
from streamlake.core.tasks import Supervisor
from streamlake.handlers.handovers import Handovers
from streamlake.log.manager import LogManager, Opening
from streamlake.log.partition import Partition
from streamlake.log.settings import LogSettings
from streamlake.s3stream.stream import Stream
from streamlake.s3stream.streams import Streams

log = structlog.get_logger(__name__)

TABLE_HOLD = "table"
REOPEN_FIRST_S = 0.05  # then twice as long, again and again
REOPEN_MAX_S = 1.0
CLOSED_TOGETHER = 200  # partitions: more would wait for one another
PARTITIONS_PER_SLICE = 256  # with nothing due, before others may run: a quarter of a millisecond


class Partitions:
    """`start` opens all; then `topic_changed` and `configs_changed` are told what is new."""

    def __init__(
        self,
        node: int,
        topics: Topics,
        configs: BrokerConfigs,
        progress: TableProgress,
        streams: Streams,
        logs: LogManager,
        handovers: Handovers,
        tasks: Supervisor,
        retention_interval_s: float = 30.0,
    ) -> None:
        self._node = node
        self._topics = topics
        self._configs = configs
        self._progress = progress
        self._streams = streams
        self._logs = logs
        self._handovers = handovers
        self._tasks = tasks
        self._retention_interval_s = retention_interval_s
        self._stale: dict[UUID, None] = {}  # topics to look at, in order
        self._failed: dict[UUID, None] = {}  # topics that could not be looked at, to try again
        self._unopened: dict[tuple[UUID, int], StreamLakeError] = {}
        self._closing: set[int] = set()  # ids of streams
        self._serves = False  # clients may ask for partitions
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._opening = asyncio.Lock()  # retention must not see a partition before its hold is set

    @property
    def unopened(self) -> int:
        """How many partitions could not be opened."""
        return len(self._unopened)

    async def start(self, wals: Wals, wal: WalKey) -> None:
        """`wal`: that of this life, which may hold records of former ones."""
        await self._apply([topic.id for topic in self._topics.all()])
        # What our former lives had open is open again by now, or lies in our WAL and is being closed, or is assigned to
        # others, also if it was while this broker started: nobody else can give that up.
        await wals.release_unrecovered(wal, self._streams.held())
        self._serves = True
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
        pause_s = REOPEN_FIRST_S
        while True:
            again = self._failed | {topic_id: None for (topic_id, _), e in self._unopened.items() if _may_pass(e)}
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s if again else None):
                    await self._wake.wait()
            pause_s = REOPEN_FIRST_S if self._stale else min(2 * pause_s, REOPEN_MAX_S)
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
        live = [topic for _, topic in found if topic is not None]
        gone = set(topic_ids)
        mine = {(topic.id, info.index) for topic in live for info in topic.partitions if info.node == self._node}
        self._unopened = {key: e for key, e in self._unopened.items() if key[0] not in gone or key in mine}
        self._close_others(live)
        async with self._opening:
            await self._open_missing(live)
            await self._set_holds(live)
        settings = self._settings(live)
        for topic in live:
            for partition in opened.get(topic.id, ()):
                partition.settings = settings[topic.id]

    async def _open_missing(self, topics: list[TopicInfo]) -> None:
        wanted = [(t, p) for t in topics for p in t.partitions if self._is_missing(t, p)]
        if not wanted:
            return
        if self._serves:
            for topic, info in wanted:
                self._handovers.begin(topic.id, info.index)
        found = await self._streams.open([p.stream_id for _, p in wanted])
        settings = self._settings(topics)
        openings = []
        for (topic, info), stream in zip(wanted, found, strict=True):
            key = (topic.id, info.index)
            if isinstance(stream, Stream):
                openings.append(Opening(stream, topic.id, info.index, settings[topic.id]))
            elif isinstance(stream, NotFound):  # it was deleted, and that change is on its way here
                self._unopened.pop(key, None)
            else:
                self._unopened[key] = stream
        results = await self._logs.open(openings)
        for opening, result in zip(openings, results, strict=True):
            key = (opening.topic_id, opening.index)
            if isinstance(result, StreamLakeError):
                self._unopened[key] = result
            else:
                self._unopened.pop(key, None)  # not before: what is about to be opened is not open yet
        self._handovers.look(topic.id for topic, _ in wanted)
        if self._serves and (opened := sum(not isinstance(result, StreamLakeError) for result in results)):
            log.info("partitions were opened", partitions=opened, waiting=self.unopened)

    def _is_missing(self, topic: TopicInfo, info: PartitionInfo) -> bool:
        # One that is being closed is looked at again when that is done.
        is_ours = info.node == self._node and info.stream_id not in self._closing
        return is_ours and self._logs.get(topic.id, info.index) is None

    def _close_others(self, topics: list[TopicInfo]) -> None:
        """Begin to close what is open here, or lies in our WAL, and is assigned to another broker."""
        leaving = {
            info.stream_id: (topic.id, info.index)
            for topic in topics
            for info in topic.partitions
            if info.node != self._node and self._streams.holds(info.stream_id) and info.stream_id not in self._closing
        }
        ids = list(leaving)
        for at in range(0, len(ids), CLOSED_TOGETHER):
            some = {stream_id: leaving[stream_id] for stream_id in ids[at : at + CLOSED_TOGETHER]}
            self._closing |= some.keys()
            self._tasks.start("closing of partitions", self._close(some))

    async def _close(self, leaving: Mapping[int, tuple[UUID, int]]) -> None:
        """The partitions, by the ids of their streams."""
        try:
            await self._streams.upload(list(leaving))  # little is left to do while nobody serves them
            ids = [stream_id for stream_id, key in leaving.items() if not self._is_assigned_here(*key)]
            for stream_id in ids:
                self._logs.close(*leaving[stream_id])
                self._handovers.begin(*leaving[stream_id])
            await self._streams.close_streams(ids)
        finally:
            self._closing -= leaving.keys()
            self._look_again({topic_id for topic_id, _ in leaving.values()})

    def _is_assigned_here(self, topic_id: UUID, index: int) -> bool:
        topic = self._topics.by_id(topic_id)
        return topic is not None and topic.partitions[index].node == self._node

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

    async def _follow_holds(self) -> None:
        """Of tables that other brokers write: what they have got may be deleted here."""
        written_elsewhere = [
            topic
            for topic in self._topics.all()
            if topic.is_table
            and topic.table_node != self._node
            and any(self._logs.get(topic.id, info.index) for info in topic.partitions)
        ]
        if written_elsewhere:
            async with self._opening:
                with contextlib.suppress(*TRANSIENT):  # holds that are too low delete nothing
                    await self._set_holds(written_elsewhere)

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
            await self._follow_holds()
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

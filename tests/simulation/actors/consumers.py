"""Readers: whatever they see is written down, and checked against all that anybody was told before.

`Reader` asks one leader for some partitions, with or without a fetch session (KIP-227). `Tailer` follows partitions
import random
from many places at once: forwards without a gap, now and then back to where it has been, at any isolation level, by
long polls, in small and large pieces. Some of its questions go to any broker that has an address, with the leader
epoch which that one claims: so superseded brokers are caught if they say what they must not.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from simulation.actors.client import Address, Client, World
from simulation.checks.ledger import Asked, Place, Violation

from streamlake.core.errors import StreamLakeError, Unavailable
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.fetch import (
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    ForgottenTopic,
    PartitionData,
)
from streamlake.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from streamlake.record.batch import BatchHeader, Buffer, check_crc, frames
from streamlake.record.compression import DECOMPRESSED_BYTES_MAX
from streamlake.record.decode import Record, decode_batch

FETCH_VERSION = 13
METADATA_VERSION = 12
FINAL_EPOCH = -1
READ_UNCOMMITTED, READ_COMMITTED = 0, 1
SESSION_LOST = (ErrorCode.FETCH_SESSION_ID_NOT_FOUND, ErrorCode.INVALID_FETCH_SESSION_EPOCH)


@dataclass(frozen=True, slots=True)
class Wanted:
    offset: int
    epoch: int  # the leader epoch to name; -1 to name none


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one partition answered. `next_offset` is where to read on, also after an out of range."""

    place: Place
    code: ErrorCode
    next_offset: int
    records: Sequence[Record] = ()
    size_bytes: int = 0  # of the batches, as they are stored
    high_watermark: int = -1
    log_start_offset: int = -1


@dataclass(frozen=True, slots=True)
class Limits:
    max_wait_ms: int = 500
    min_bytes: int = 1
    max_bytes: int = 50 << 20
    partition_max_bytes: int = 1 << 20
    isolation: int = READ_UNCOMMITTED


@dataclass(slots=True)
class Session:
    """What a broker remembers of us."""

    id: int = 0
    epoch: int = 0
    known: dict[Place, Wanted] = field(default_factory=dict)


class Reader:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._ledger = client.world.ledger
        self._sessions: dict[Address, Session] = {}

    async def fetch(
        self, address: Address, wanted: Mapping[Place, Wanted], limits: Limits, *, session: bool = False
    ) -> list[Fetched]:
        """What this broker has, checked. Partitions with nothing new may be left out. Unavailable: it did not answer.

        With `session` all fetches of one address must use the same isolation level."""
        kept = self._sessions.setdefault(address, Session()) if session else Session(epoch=FINAL_EPOCH)
        asked = {place: self._ledger.ask(place, want.epoch) for place, want in wanted.items()}
        request = self._request(kept, wanted, limits)
        try:
            answer: FetchResponse = await self._client.call(address, ApiKey.FETCH, request, FETCH_VERSION)
        except BaseException:
            self._sessions.pop(address, None)
            raise
        if answer.error_code != ErrorCode.NONE:
            if answer.error_code not in SESSION_LOST or not session or kept.id == 0:
                raise Violation(f"{address} refused a fetch with {ErrorCode(answer.error_code).name}")
            self._sessions.pop(address, None)
            return []
        if session:
            kept.id, kept.epoch = answer.session_id, kept.epoch + 1
            kept.known = dict(wanted)
            if not answer.session_id:
                self._sessions.pop(address, None)
        return [self._judge(answered, asked, wanted, limits) for answered in _partitions(answer)]

    def _request(self, session: Session, wanted: Mapping[Place, Wanted], limits: Limits) -> FetchRequest:
        """All partitions when a session begins, else what has changed."""
        changed = {p: w for p, w in wanted.items() if session.known.get(p) != w}
        forgotten = [place for place in session.known if place not in wanted]
        return FetchRequest(
            max_wait_ms=limits.max_wait_ms,
            min_bytes=limits.min_bytes,
            max_bytes=limits.max_bytes,
            isolation_level=limits.isolation,
            session_id=session.id,
            session_epoch=session.epoch,
            topics=tuple(
                FetchTopic(
                    topic_id=place.topic_id,
                    partitions=(
                        FetchPartition(
                            partition=place.partition,
                            current_leader_epoch=want.epoch,
                            fetch_offset=want.offset,
                            partition_max_bytes=limits.partition_max_bytes,
                        ),
                    ),
                )
                for place, want in changed.items()
            ),
            forgotten_topics_data=tuple(
                ForgottenTopic(topic_id=place.topic_id, partitions=(place.partition,)) for place in forgotten
            ),
        )

    def _judge(
        self,
        answered: tuple[Place, PartitionData],
        asked: Mapping[Place, Asked],
        wanted: Mapping[Place, Wanted],
        limits: Limits,
    ) -> Fetched:
        place, data = answered
        if place not in wanted:
            raise Violation(f"a fetch answers {place}, which nobody asked for")
        offset, code = wanted[place].offset, ErrorCode(data.error_code)
        if code == ErrorCode.OFFSET_OUT_OF_RANGE:
            self._ledger.out_of_range(asked[place], offset, data.log_start_offset)
            return Fetched(place, code, data.log_start_offset)
        if code in (ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.UNKNOWN_SERVER_ERROR):
            raise Violation(f"{place}@{offset} cannot be read: {code.name}")
        if code != ErrorCode.NONE:
            return Fetched(place, code, offset)
        self._ledger.answered(
            asked[place],
            high_watermark=data.high_watermark,
            last_stable_offset=data.last_stable_offset,
            log_start_offset=data.log_start_offset,
        )
        records = data.records or b""
        end = data.last_stable_offset if limits.isolation == READ_COMMITTED else data.high_watermark
        read, next_offset = self._read(place, offset, records, end, wanted[place].epoch)
        return Fetched(place, code, next_offset, read, len(records), data.high_watermark, data.log_start_offset)

    def _read(
        self, place: Place, offset: int, data: Buffer, end_offset: int, leader_epoch: int
    ) -> tuple[list[Record], int]:
        """The records from `offset` on, and where they end. Violation if one is missing, strange or not durable."""
        found: list[Record] = []
        expected = offset
        for header, records in decode(data):
            if not header.base_offset <= expected < header.next_offset:
                raise Violation(
                    f"{place}: read at {expected}, got a batch of {header.base_offset}..{header.last_offset}"
                )
            if header.next_offset > end_offset:
                raise Violation(f"{place} shows offset {header.last_offset}, its readers may see up to {end_offset}")
            if leader_epoch >= 0 and header.leader_epoch > leader_epoch:
                raise Violation(
                    f"{place}@{header.base_offset}: leader {leader_epoch} has a batch of epoch {header.leader_epoch}"
                )
            self._ledger.read(place, header, records)
            found += [record for record in records if record.offset >= offset]
            expected = header.next_offset
        return found, expected


def decode(data: Buffer) -> list[tuple[BatchHeader, list[Record]]]:
    """All batches of a `records` field: whole, with the right CRC and one record for each offset. Violation."""
    batches, size = [], 0
    for header, batch in frames(data):
        try:
            check_crc(header, batch)
            records = decode_batch(header, batch, DECOMPRESSED_BYTES_MAX)
        except StreamLakeError as error:
            raise Violation(f"the batch of {header.base_offset}..{header.last_offset} is damaged: {error}") from error
        if [r.offset for r in records] != list(range(header.base_offset, header.next_offset)):
            raise Violation(
                f"a batch of {header.base_offset}..{header.last_offset} holds {[r.offset for r in records]}"
            )
        batches.append((header, records))
        size += len(batch)
    if size != len(data):
        raise Violation(f"{len(data) - size} of {len(data)} fetched bytes are not a whole batch")
    return batches


def _partitions(answer: FetchResponse) -> list[tuple[Place, PartitionData]]:
    return [
        (Place(topic.topic_id, partition.partition_index), partition)
        for topic in answer.responses
        if topic.topic_id is not None
        for partition in topic.partitions
    ]


class Tailer:
    """Reads all partitions of some topics until the run ends. `rewind_share`: how often, per round, it looks again at
    what it has seen; `stray_share`: how often it asks any broker instead of the leader that it knows."""

    def __init__(
        self,
        world: World,
        name: str,
        rng: random.Random,
        topics: Sequence[str],
        *,
        pace_s: float = 0.05,
        rewind_share: float = 0.05,
        stray_share: float = 0.1,
        waits_ms: Sequence[int] = (0, 100, 1_000),
    ) -> None:
        self._world = world
        self.client = Client(world, name, rng)
        self._topics = topics
        self._pace_s = pace_s
        self._rewind_share = rewind_share
        self._stray_share = stray_share
        self._waits_ms = waits_ms
        self._reader = Reader(self.client)
        self._sessions = rng.random() < 0.5
        self._isolation = rng.choice([READ_UNCOMMITTED, READ_COMMITTED])
        self._positions: dict[Place, int] = {}

    async def run(self) -> None:
        rng = self.client.rng
        await self.client.refresh(self._topics)
        try:
            while not self._world.stop.is_set():
                await self.client.now_and_then(self._topics)
                if not await self._round():
                    await self.client.find(self._topics)
                await self._world.pause(rng.uniform(0, self._pace_s))
        finally:
            await self.client.drop()

    async def _round(self) -> bool:
        """One fetch from each leader. False if some partition has no leader that answers."""
        client, rng = self.client, self.client.rng
        by_leader: dict[Address, dict[Place, Wanted]] = {}
        places = client.places(self._topics)
        well = bool(places)
        for place in places:
            leader = client.leaders.get(place)
            if leader is None:
                well = False
                continue
            if rng.random() < self._rewind_share:
                self._positions[place] = rng.randint(0, self._positions.get(place, 0))
            epoch = leader.epoch if rng.random() < 0.95 else -1
            wanted = Wanted(self._positions.setdefault(place, 0), epoch)
            by_leader.setdefault(leader.address, {})[place] = wanted
        for address, wanted_all in by_leader.items():
            well = await self._fetch(address, wanted_all) and well
        if rng.random() < self._stray_share:
            await self._stray()
        return well

    async def _fetch(self, address: Address, wanted: Mapping[Place, Wanted]) -> bool:
        try:
            answers = await self._reader.fetch(address, wanted, self._limits(), session=self._sessions)
        except Unavailable:
            return False
        well = True
        for answer in answers:
            well = answer.code in (ErrorCode.NONE, ErrorCode.OFFSET_OUT_OF_RANGE) and well
            self._positions[answer.place] = answer.next_offset
        return well

    def _limits(self) -> Limits:
        rng = self.client.rng
        return Limits(
            max_wait_ms=rng.choice(self._waits_ms),
            min_bytes=rng.choice([1, 1, 10_000]),
            max_bytes=rng.choice([1, 1_000, 50 << 20]),
            partition_max_bytes=rng.choice([1, 1_000, 1 << 20]),
            isolation=self._isolation,
        )

    async def _stray(self) -> None:
        """Ask any broker what it leads, and read there a little, by the epoch that it claims."""
        address = self.client.some_address()
        if address is None:
            return
        try:
            claims = await claimed(self.client, address, self._topics)
            rng = self.client.rng
            wanted = {
                place: Wanted(rng.randint(0, self._positions.get(place, 0)), epoch) for place, epoch in claims.items()
            }
            if wanted:
                await self._reader.fetch(address, wanted, Limits(max_wait_ms=0, isolation=self._isolation))
        except Unavailable:
            pass


async def claimed(client: Client, address: Address, topics: Sequence[str]) -> dict[Place, int]:
    """Partitions that the broker there says it leads, with the leader epoch it claims. Unavailable."""
    names = tuple(MetadataRequestTopic(name=name) for name in topics)
    request = MetadataRequest(topics=names, allow_auto_topic_creation=False)
    answer = await client.call(address, ApiKey.METADATA, request, METADATA_VERSION)
    brokers = {broker.node_id: (broker.host, broker.port) for broker in answer.brokers}
    found = {}
    for topic in answer.topics:
        if topic.error_code == ErrorCode.NONE:
            client.world.ledger.saw_topic(topic.topic_id, topic.name, len(topic.partitions))
            for partition in topic.partitions:
                if brokers.get(partition.leader_id) == address:
                    found[Place(topic.topic_id, partition.partition_index)] = partition.leader_epoch
    return found

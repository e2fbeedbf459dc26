"""Members of consumer groups, as Kafka's consumer does it: join, sync, fetch what is committed, read on, process,
commit, heartbeat; rejoin when told so; now and then crash without leaving, or leave with a commit right before it.

A member writes down what it has processed before it commits, so the ledger can tell whether a group skipped anything.
The topics must not be deleted while groups read them: offsets are committed by name, and a late commit for a topic
that is gone would count for its successor (Kafka has the same weakness below OffsetCommit v10).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
from simulation.actors.client import Address, Client, Flights, World
from simulation.actors.consumers import Limits, Reader, Wanted
from simulation.checks.commits import NOTHING, Commit
from simulation.checks.ledger import Place, Violation

from streamlake.core.errors import Unavailable
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.find_coordinator import FindCoordinatorRequest
from streamlake.protocol.messages.heartbeat import HeartbeatRequest
from streamlake.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse
from streamlake.protocol.messages.leave_group import LeaveGroupRequest, MemberIdentity
from streamlake.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
)
from streamlake.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
)
from streamlake.protocol.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment

FIND_COORDINATOR_VERSION, JOIN_VERSION, SYNC_VERSION, HEARTBEAT_VERSION = 4, 9, 5, 4
LEAVE_VERSION, COMMIT_VERSION, OFFSET_FETCH_VERSION = 5, 9, 9
SESSION_TIMEOUT_MS = 6_000  # the least that a broker takes by default
REBALANCE_TIMEOUT_MS = 6_000
NAP_S = (6.0, 15.0)  # a batch of records that takes a member longer than its session: meanwhile it is replaced
PROTOCOL = "spread"
# What a broker may answer to a member that did nothing wrong; anything else is a bug.
LOST = frozenset({
    ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION, ErrorCode.REBALANCE_IN_PROGRESS,
    ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.REQUEST_TIMED_OUT, ErrorCode.MEMBER_ID_REQUIRED,
})  # fmt: skip
# After these answers to OffsetCommit nothing was stored; COORDINATOR_NOT_AVAILABLE and others leave it open.
NOT_COMMITTED = frozenset({
    ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION, ErrorCode.REBALANCE_IN_PROGRESS,
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
})  # fmt: skip


class Rejoin(Exception):
    """The membership is over; nothing is wrong with that."""


@dataclass(slots=True)
class Membership:
    """One generation as this member knows it."""

    address: Address
    member_id: str
    generation: int
    positions: dict[Place, int] = field(default_factory=dict)
    committed: dict[Place, int] = field(default_factory=dict)


class GroupMember:
    def __init__(
        self,
        world: World,
        name: str,
        rng: random.Random,
        group: str,
        topics: Sequence[str],
        *,
        pace_s: float = 0.05,
        crash_share: float = 0.01,
        leave_share: float = 0.01,
        nap_share: float = 0.02,
    ) -> None:
        self._world = world
        self.client = Client(world, name, rng)
        self.group = group
        self._topics = topics
        self._pace_s = pace_s
        self._crash_share = crash_share
        self._leave_share = leave_share
        self._nap_share = nap_share
        self._history = world.ledger.group(group)
        self._reader = Reader(self.client)
        self._member_id = ""
        self._flights = Flights(2)
        self.processed = 0

    async def run(self) -> None:
        await self.client.refresh(self._topics)
        try:
            while not self._world.stop.is_set():
                try:
                    membership = await self._join()
                    await self._work(membership)
                except (Unavailable, Rejoin):
                    await self.client.find(self._topics)
        finally:
            self._flights.give_up()
            await self.client.drop()

    # -- becoming a member -------------------------------------------------------------------------------------------

    async def _join(self) -> Membership:
        """A member of a generation, with its partitions and where to begin in them. Rejoin, Unavailable."""
        address = await self._coordinator()
        joined = await self._join_group(address)
        assignments: tuple[SyncGroupRequestAssignment, ...] = ()
        if joined.leader == joined.member_id:
            assignments = self._assign([member.member_id for member in joined.members])
        request = SyncGroupRequest(
            group_id=self.group,
            generation_id=joined.generation_id,
            member_id=joined.member_id,
            protocol_type="consumer",
            protocol_name=PROTOCOL,
            assignments=assignments,
        )
        answer = await self.client.call(address, ApiKey.SYNC_GROUP, request, SYNC_VERSION)
        self._check(answer.error_code)
        places = decode_assignment(answer.assignment)
        self._history.assigned(joined.generation_id, joined.member_id, places)
        membership = Membership(address, joined.member_id, joined.generation_id)
        if places:
            await self._begin(membership, places)
        return membership

    async def _coordinator(self) -> Address:
        address = self.client.some_address()
        if address is None:
            raise Rejoin
        request = FindCoordinatorRequest(coordinator_keys=(self.group,))
        answer = await self.client.call(address, ApiKey.FIND_COORDINATOR, request, FIND_COORDINATOR_VERSION)
        (found,) = answer.coordinators
        self._check(found.error_code)
        return found.host, found.port

    async def _join_group(self, address: Address) -> JoinGroupResponse:
        for _ in range(2):  # a new member learns its id first (KIP-394)
            request = JoinGroupRequest(
                group_id=self.group,
                session_timeout_ms=SESSION_TIMEOUT_MS,
                rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
                member_id=self._member_id,
                protocol_type="consumer",
                protocols=(JoinGroupRequestProtocol(name=PROTOCOL, metadata=b"all of it"),),
            )
            answer: JoinGroupResponse = await self.client.call(address, ApiKey.JOIN_GROUP, request, JOIN_VERSION)
            if answer.error_code == ErrorCode.MEMBER_ID_REQUIRED:
                self._member_id = answer.member_id
                continue
            self._check(answer.error_code)
            self._member_id = answer.member_id
            return answer
        raise Rejoin

    def _assign(self, member_ids: Sequence[str]) -> tuple[SyncGroupRequestAssignment, ...]:
        """All partitions that are known, in turn to each member."""
        places = self.client.places(self._topics)
        return tuple(
            SyncGroupRequestAssignment(member_id=m, assignment=encode_assignment(places[at :: len(member_ids)]))
            for at, m in enumerate(member_ids)
        )

    async def _begin(self, membership: Membership, places: Sequence[Place]) -> None:
        """Positions from what is committed, else from the start of the log."""
        by_name = {(self.client.topic_name(place), place.partition): place for place in places}
        asked = self._history.ask()
        answer = await fetch_committed(self.client, membership.address, self.group, list(by_name))
        self._check(answer.error_code)
        for name, index, offset in committed_offsets(answer):
            place = by_name[name, index]
            self._history.fetched(place, offset, asked)
            if offset == NOTHING:
                self._history.begins(place, 0)
            membership.positions[place] = membership.committed[place] = max(offset, 0)

    def _check(self, error_code: int) -> None:
        """Rejoin for what happens to members; Violation for what must not."""
        code = ErrorCode(error_code)
        if code == ErrorCode.NONE:
            return
        if code not in LOST:
            raise Violation(f"group {self.group}: a member was answered {code.name}")
        if code == ErrorCode.UNKNOWN_MEMBER_ID:
            self._member_id = ""
        raise Rejoin

    # -- being a member ----------------------------------------------------------------------------------------------

    async def _work(self, membership: Membership) -> None:
        """Until the run ends, the generation does, or the member does."""
        rng = self.client.rng
        while not self._world.stop.is_set():
            await self._read(membership)
            steps = [self._heartbeat, self._commit]
            rng.shuffle(steps)  # whoever was asleep for long may commit before it learns that its place is taken
            for step in steps[: rng.randint(1, 2)]:
                await step(membership)
            if rng.random() < self._crash_share:
                await self.client.drop()
                self._member_id = ""
                return
            if rng.random() < self._leave_share:
                break
            nap = rng.random() < self._nap_share
            await self._world.pause(rng.uniform(*NAP_S) if nap else rng.uniform(0, self._pace_s))
        await self._leave(membership)

    async def _read(self, membership: Membership) -> None:
        wanted: dict[Address, dict[Place, Wanted]] = {}
        for place, position in membership.positions.items():
            leader = self.client.leaders.get(place)
            if leader is not None:
                wanted.setdefault(leader.address, {})[place] = Wanted(position, leader.epoch)
        well = bool(wanted) or not membership.positions
        for address, places in wanted.items():
            try:
                answers = await self._reader.fetch(address, places, Limits(max_wait_ms=100))
            except Unavailable:
                well = False
                continue
            for answer in answers:
                well = answer.code in (ErrorCode.NONE, ErrorCode.OFFSET_OUT_OF_RANGE) and well
                start = membership.positions[answer.place]
                if answer.next_offset > start:  # an out of range moves on to the log start: nobody can have the rest
                    self._history.processed(answer.place, start, answer.next_offset)
                    membership.positions[answer.place] = answer.next_offset
                self.processed += len(answer.records)
        if not well:
            await self.client.find(self._topics)

    async def _heartbeat(self, membership: Membership) -> None:
        request = HeartbeatRequest(
            group_id=self.group, generation_id=membership.generation, member_id=membership.member_id
        )
        answer = await self.client.call(membership.address, ApiKey.HEARTBEAT, request, HEARTBEAT_VERSION)
        self._check(answer.error_code)

    async def _commit(self, membership: Membership) -> None:
        """All positions that moved. The ledger hears of each commit before it is sent."""
        moved = {p: o for p, o in membership.positions.items() if o != membership.committed[p]}
        if not moved:
            return
        commits = {p: self._history.committing(p, o, membership.generation) for p, o in moved.items()}
        by_name = {(self.client.topic_name(place), place.partition): place for place in moved}
        request = OffsetCommitRequest(
            group_id=self.group,
            generation_id_or_member_epoch=membership.generation,
            member_id=membership.member_id,
            topics=tuple(
                OffsetCommitRequestTopic(
                    name=name,
                    partitions=(OffsetCommitRequestPartition(partition_index=index, committed_offset=moved[place]),),
                )
                for (name, index), place in by_name.items()
            ),
        )
        self._history.under_way += 1
        try:
            answer: OffsetCommitResponse = await self.client.call(
                membership.address, ApiKey.OFFSET_COMMIT, request, COMMIT_VERSION
            )
        finally:
            self._history.under_way -= 1
        codes = {
            by_name[topic.name, partition.partition_index]: partition.error_code
            for topic in answer.topics
            for partition in topic.partitions
        }
        for place, commit in commits.items():
            if self._settle(commit, ErrorCode(codes[place])):
                membership.committed[place] = commit.offset
        for code in codes.values():
            self._check(code)

    def _settle(self, commit: Commit, code: ErrorCode) -> bool:
        if code == ErrorCode.NONE:
            commit.acked()
        elif code in NOT_COMMITTED:
            commit.refused = True
        return code == ErrorCode.NONE

    async def _leave(self, membership: Membership) -> None:
        """Commit and LeaveGroup at once on one connection: the first must not suffer from the second (hazard C15)."""
        await self._flights.start(lambda: self._last_commit(membership))
        await self._flights.start(lambda: self._leave_group(membership))
        await self._flights.drain()
        self._member_id = ""

    async def _last_commit(self, membership: Membership) -> None:
        try:
            await self._commit(membership)
        except (Unavailable, Rejoin):
            pass

    async def _leave_group(self, membership: Membership) -> None:
        leaving = (MemberIdentity(member_id=membership.member_id),)
        request = LeaveGroupRequest(group_id=self.group, members=leaving)
        try:
            await self.client.call(membership.address, ApiKey.LEAVE_GROUP, request, LEAVE_VERSION)
        except Unavailable:
            pass


class GroupWatcher:
    """A lag monitor: it asks any broker what the group has committed, and is no member."""

    def __init__(
        self, world: World, name: str, rng: random.Random, group: str, topics: Sequence[str], *, pace_s: float
    ) -> None:
        self._world = world
        self.client = Client(world, name, rng)
        self.group = group
        self._topics = topics
        self._pace_s = pace_s

    async def run(self) -> None:
        await self.client.refresh(self._topics)
        try:
            while not self._world.stop.is_set():
                await self._world.pause(self.client.rng.uniform(0, self._pace_s))
                try:
                    await self._look()
                except Unavailable:
                    await self.client.find(self._topics)
        finally:
            await self.client.drop()

    async def _look(self) -> None:
        history = self._world.ledger.group(self.group)
        address = self.client.some_address()
        by_name = {(self.client.topic_name(place), place.partition): place for place in history.commits}
        if address is None or not by_name:
            return
        asked = history.ask()
        answer = await fetch_committed(self.client, address, self.group, list(by_name))
        if answer.error_code == ErrorCode.NONE:
            for name, index, offset in committed_offsets(answer):
                history.fetched(by_name[name, index], offset, asked)


def encode_assignment(places: Sequence[Place]) -> bytes:
    return msgspec.json.encode([(str(place.topic_id), place.partition) for place in places])


def decode_assignment(data: bytes) -> list[Place]:
    """Nothing assigned may come as no bytes."""
    pairs: list[Any] = msgspec.json.decode(data) if data else []
    return [Place(UUID(topic_id), index) for topic_id, index in pairs]


async def fetch_committed(client: Client, address: Address, group: str, partitions: Sequence[tuple[str, int]]) -> Any:
    """OffsetFetch of these (topic, partition): the answer for the group. Unavailable."""
    topics: dict[str, list[int]] = {}
    for name, index in partitions:
        topics.setdefault(name, []).append(index)
    wanted = tuple(OffsetFetchRequestTopics(name=n, partition_indexes=tuple(i)) for n, i in topics.items())
    request = OffsetFetchRequest(groups=(OffsetFetchRequestGroup(group_id=group, topics=wanted),), require_stable=True)
    answer = await client.call(address, ApiKey.OFFSET_FETCH, request, OFFSET_FETCH_VERSION)
    (found,) = answer.groups
    return found


def committed_offsets(answer: Any) -> list[tuple[str, int, int]]:
    """(topic, partition, offset; -1 if nothing is committed)."""
    return [
        (topic.name, partition.partition_index, partition.committed_offset)
        for topic in answer.topics
        for partition in topic.partitions
    ]

"""A whole connection with the real handlers behind it: any bytes, cut anyhow, into a broker that is all in memory.

The first byte of an input says how the rest is cut. Handlers may answer with any error code; what they must not do is
raise, or keep a connection open whose bytes are not Kafka's.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fuzz.target import MIB, Target, run_async
from fuzz.wire_targets import cut
from simulation.world.disk import SimDisk
from support.deliver import deliver
from support.log_bench import FixedClock
from support.produce_pair import Requests, same
from support.wait import DEADLINE_S
from support.wire import (
    Member,
    Topic,
    encoded,
    fetch_partition,
    fetch_topic,
    join_request,
    newest,
    produce_request,
    sync_request,
)
from support.wire_stub import FakeTransport

from streamlake.broker.services import Services
from streamlake.cluster.store.database import Database
from streamlake.config import Config
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor
from streamlake.handlers.apis import HANDLERS, Handler
from streamlake.handlers.context import Context, Exchange
from streamlake.protocol.messages import (
    ApiKey,
    alter_configs,
    consumer_group_describe,
    consumer_group_heartbeat,
    create_partitions,
    create_topics,
    delete_records,
    describe_configs,
    describe_topic_partitions,
    fetch,
    find_coordinator,
    heartbeat,
    incremental_alter_configs,
    init_producer_id,
    leave_group,
    list_offsets,
    metadata,
    offset_commit,
    offset_fetch,
    offset_for_leader_epoch,
)
from streamlake.protocol.requests import api
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch
from streamlake.s3stream.store.local import LocalStore
from streamlake.server.connection import Connection, Counters
from streamlake.server.memory import ConnectionMemory

FRAME_BYTES_MAX = 1 << 20
CONNECTIONS_EACH = 100  # on one broker; then a new one
TOPIC = "t"
DATA_DIR = "/data"


class _Machine:
    """Implements Machine: nothing outside of this process, and no threads."""

    def __init__(self) -> None:
        self.clock, self.ids, self.disk = FixedClock(), Ids(1), SimDisk()
        self._executor = InlineExecutor()

    def executor(self, name: str, threads: int = 1) -> InlineExecutor:
        return self._executor

    async def open_store(self, url: str) -> LocalStore:
        return await LocalStore.open(url.removeprefix("file://"), self.disk, self._executor, self.ids)

    async def open_metadata(self, url: str) -> Database:
        return await Database.open("sqlite://", self._executor, self.clock)

    def close(self) -> None:
        pass


class Broker:
    """`failures`: what handlers raised."""

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self.connections = 0
        storage = {"data_dir": DATA_DIR, "wal_capacity_bytes": 4 * MIB, "wal_segment_bytes": MIB}
        settings = {"storage": storage, "groups": {"initial_rebalance_delay_ms": 0}}
        self.services = Services(Config.model_validate(settings), _Machine(), self.failures.append)  # type: ignore[arg-type]

    async def start(self) -> None:
        await self.services.start("localhost", 9092)
        self.topic = await self.services.topics.create(TOPIC, 2, {})
        await self.services.partitions.settled()
        self._handlers = {h.api.key: replace(h, handle=self._watched(h)) for h in HANDLERS}

    def _watched(self, handler: Handler) -> Any:
        async def handle(ctx: Context, exchange: Exchange) -> Any:
            try:
                return await handler.handle(ctx, exchange)
            except Exception as error:
                self.failures.append(error)
                raise

        return handle

    async def serve(self, pieces: Sequence[bytes]) -> None:
        """A connection's life: all pieces come, what can be answered is, and the client goes away."""
        self.connections += 1
        counters, transport = Counters(), FakeTransport()
        transport.abort = lambda: None  # type: ignore[method-assign]
        connection = Connection(
            self.services.context(),
            self._handlers,
            FRAME_BYTES_MAX,
            counters,
            {},
            ConnectionMemory(1 << 30),
        )
        connection.connection_made(transport)
        for piece in pieces:
            await asyncio.sleep(0)
            if transport.closed or not transport.reading:
                break
            deliver(connection, piece)
        for _ in range(20):
            await asyncio.sleep(0)
        connection.connection_lost(None)
        if pending := [*connection._tasks, *connection._polls]:
            await asyncio.wait(pending, timeout=DEADLINE_S)
            assert not [*connection._tasks, *connection._polls], "a request goes on without its connection"
        if self.failures:
            raise self.failures[0]
        assert counters.failures == 0 and counters.connections == 0


def seeds() -> list[bytes]:
    rng = random.Random(10)
    topic = Topic(TOPIC, run_async(_fresh()).topic.id)  # every broker gives the same
    batch = encode_batch([Record(i, 1_700_000_000_000, b"k", b"value") for i in range(3)])
    idempotent = encode_batch([Record(0, 1, None, b"v")], producer_id=1000, producer_epoch=0, base_sequence=0)
    member = Member("g", "nobody", 1)
    requests: list[tuple[ApiKey, Any]] = [
        (ApiKey.API_VERSIONS, None),
        (ApiKey.METADATA, metadata.MetadataRequest(topics=(metadata.MetadataRequestTopic(topic_id=topic.id, name=TOPIC),))),
        (ApiKey.PRODUCE, produce_request(topic, {0: batch, 1: idempotent})),
        (ApiKey.PRODUCE, produce_request(topic, {0: batch}, acks=0)),
        (ApiKey.FETCH, fetch.FetchRequest(session_epoch=0, max_wait_ms=1, topics=(fetch_topic(topic, fetch_partition(0), fetch_partition(1, 1)),))),
        (ApiKey.LIST_OFFSETS, list_offsets.ListOffsetsRequest(topics=(list_offsets.ListOffsetsTopic(name=TOPIC, partitions=tuple(list_offsets.ListOffsetsPartition(partition_index=0, timestamp=t) for t in (-1, -2, -3, 5))),))),
        (ApiKey.OFFSET_FOR_LEADER_EPOCH, offset_for_leader_epoch.OffsetForLeaderEpochRequest(topics=(offset_for_leader_epoch.OffsetForLeaderTopic(topic=TOPIC, partitions=(offset_for_leader_epoch.OffsetForLeaderPartition(partition=0, leader_epoch=1),)),))),
        (ApiKey.FIND_COORDINATOR, find_coordinator.FindCoordinatorRequest(coordinator_keys=("g", ""))),
        (ApiKey.JOIN_GROUP, join_request("g", "")),
        (ApiKey.SYNC_GROUP, sync_request(member, {"nobody": b"all"})),
        (ApiKey.HEARTBEAT, heartbeat.HeartbeatRequest(group_id="g", generation_id=1, member_id="nobody")),
        (ApiKey.CONSUMER_GROUP_HEARTBEAT, consumer_group_heartbeat.ConsumerGroupHeartbeatRequest(
            group_id="c", member_id="m", rebalance_timeout_ms=1_000, subscribed_topic_names=(TOPIC,),
            subscribed_topic_regex="t.*", server_assignor="range")),
        (ApiKey.CONSUMER_GROUP_HEARTBEAT, consumer_group_heartbeat.ConsumerGroupHeartbeatRequest(
            group_id="c", member_id="m", member_epoch=2, topic_partitions=None)),
        (ApiKey.CONSUMER_GROUP_HEARTBEAT, consumer_group_heartbeat.ConsumerGroupHeartbeatRequest(
            group_id="c", member_id="s", rebalance_timeout_ms=1_000, subscribed_topic_names=(TOPIC,), instance_id="i")),
        (ApiKey.CONSUMER_GROUP_HEARTBEAT, consumer_group_heartbeat.ConsumerGroupHeartbeatRequest(
            group_id="c", member_id="s", member_epoch=-2, instance_id="i")),
        (ApiKey.CONSUMER_GROUP_DESCRIBE, consumer_group_describe.ConsumerGroupDescribeRequest(group_ids=("c", "g"))),
        (ApiKey.LEAVE_GROUP, leave_group.LeaveGroupRequest(group_id="g", members=(leave_group.MemberIdentity(member_id="nobody"),))),
        (ApiKey.OFFSET_COMMIT, offset_commit.OffsetCommitRequest(group_id="o", topics=(offset_commit.OffsetCommitRequestTopic(name=TOPIC, partitions=(offset_commit.OffsetCommitRequestPartition(partition_index=0, committed_offset=2, committed_metadata="m"),)),))),
        (ApiKey.OFFSET_FETCH, offset_fetch.OffsetFetchRequest(groups=(offset_fetch.OffsetFetchRequestGroup(group_id="o", topics=None),))),
        (ApiKey.INIT_PRODUCER_ID, init_producer_id.InitProducerIdRequest(transaction_timeout_ms=1000)),
        (ApiKey.CREATE_TOPICS, create_topics.CreateTopicsRequest(timeout_ms=5, topics=(create_topics.CreatableTopic(name="u", num_partitions=1, replication_factor=1, configs=(create_topics.CreatableTopicConfig(name="retention.ms", value="5"),)),))),
        (ApiKey.CREATE_PARTITIONS, create_partitions.CreatePartitionsRequest(topics=(create_partitions.CreatePartitionsTopic(name=TOPIC, count=3),))),
        (ApiKey.DELETE_RECORDS, delete_records.DeleteRecordsRequest(timeout_ms=5, topics=(delete_records.DeleteRecordsTopic(name=TOPIC, partitions=(delete_records.DeleteRecordsPartition(partition_index=0, offset=1),)),))),
        (ApiKey.DESCRIBE_CONFIGS, describe_configs.DescribeConfigsRequest(resources=(describe_configs.DescribeConfigsResource(resource_type=2, resource_name=TOPIC, configuration_keys=None),))),
        (ApiKey.ALTER_CONFIGS, alter_configs.AlterConfigsRequest(resources=(alter_configs.AlterConfigsResource(resource_type=2, resource_name=TOPIC, configs=(alter_configs.AlterableConfig(name="retention.ms", value="9999"),)),))),
        (ApiKey.INCREMENTAL_ALTER_CONFIGS, incremental_alter_configs.IncrementalAlterConfigsRequest(resources=(incremental_alter_configs.AlterConfigsResource(resource_type=2, resource_name=TOPIC, configs=(incremental_alter_configs.AlterableConfig(name="cleanup.policy", config_operation=2, value="compact"),)),))),
        (ApiKey.DESCRIBE_TOPIC_PARTITIONS, describe_topic_partitions.DescribeTopicPartitionsRequest(topics=(describe_topic_partitions.TopicRequest(name=TOPIC),))),
    ]  # fmt: skip
    frames = []
    for number, (key, request) in enumerate(requests):
        frames.append(encoded(key, newest(key), request or api(key).request(), number))
    whole = [bytes([rng.choice([0, 0, 0, 130])]) + frame for frame in frames]
    return [*whole, *(bytes([how]) + b"".join(rng.sample(frames, 4)) for how in (0, 50, 200))]


_broker: Broker | None = None


async def _fresh() -> Broker:
    broker = Broker()
    await broker.start()
    return broker


def check(data: bytes) -> None:
    run_async(_serve(cut(data[1:], data[0] if data else 0)))


async def _serve(pieces: Sequence[bytes]) -> None:
    global _broker
    if _broker is None or _broker.connections >= CONNECTIONS_EACH or _broker.failures:
        if _broker is not None:
            await _broker.services.stop()
        _broker = await _fresh()
    await _broker.serve(pieces)


def row_seeds() -> list[bytes]:
    rng = random.Random(11)
    return [bytes([how]) + b"".join(Requests(rng).draw(count)) for count in (1, 2, 8, 30) for how in (0, 0, 60)]


def check_rows(data: bytes) -> None:
    """Begun together or one by one: no difference."""
    run_async(same(cut(data[1:], data[0] if data else 0)))


TARGETS = [
    Target("connection", seeds, check, memory_bytes=64 * MIB, examples=40),
    Target("produce rows", row_seeds, check_rows, memory_bytes=64 * MIB, examples=60),
]

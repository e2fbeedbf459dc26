"""Administration: topics come and go, grow and change while everything else runs.

Two kinds of topics: `lasting` ones are only grown, altered and trimmed; `scratch` ones are also deleted, and made again
under the same name. Every wish is written down before it is sent, as it may come true without an answer.
"""

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from msgspec import Struct
from simulation.actors.client import Client, World
from simulation.checks.ledger import Place, Violation

from streamlake.core.errors import Unavailable
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.create_partitions import CreatePartitionsRequest, CreatePartitionsTopic
from streamlake.protocol.messages.create_topics import CreatableTopic, CreatableTopicConfig, CreateTopicsRequest
from streamlake.protocol.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
)
from streamlake.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from streamlake.protocol.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from streamlake.protocol.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from streamlake.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic

CREATE_VERSION, DELETE_VERSION, CREATE_PARTITIONS_VERSION, ALTER_VERSION = 7, 6, 3, 1
DELETE_RECORDS_VERSION, LIST_OFFSETS_VERSION, METADATA_VERSION = 2, 7, 12
LATEST, EARLIEST = -1, -2
TOPIC_RESOURCE, SET = 2, 0
RETENTION_MS, RETENTION_BYTES, TABLE_ENABLE = "retention.ms", "retention.bytes", "streamlake.table.enable"
READ_COMMITTED = 1


class Admin:
    """Call its methods from a test, or `run` it with the operations that a life should see.

    Each method sends one request to any broker; True if it was done, as far as the answer tells."""

    def __init__(
        self,
        world: World,
        name: str,
        rng: random.Random,
        lasting: Sequence[str] = (),
        scratch: Sequence[str] = (),
        *,
        pace_s: float = 1.0,
        partitions_max: int = 6,
        retention_ms: Sequence[int] = (-1, 5_000, 60_000),
        retention_bytes: Sequence[int] = (-1, 20_000),
        tables: Sequence[str] = (),
    ) -> None:
        self._world = world
        self._ledger = world.ledger
        self.client = Client(world, name, rng)
        self._lasting = lasting
        self._scratch = scratch
        self._pace_s = pace_s
        self._partitions_max = partitions_max
        self._retention_ms = retention_ms
        self._retention_bytes = retention_bytes
        self._tables = tables
        self.done = 0

    async def run(self) -> None:
        rng = self.client.rng
        try:
            while not self._world.stop.is_set():
                await self.client.refresh([*self._lasting, *self._scratch])
                operation = rng.choice(self._operations())
                self.done += await operation()
                await self._world.pause(rng.uniform(0, self._pace_s))
        finally:
            await self.client.drop()

    def _operations(self) -> list[Callable[[], Awaitable[bool]]]:
        operations: list[Callable[[], Awaitable[bool]]] = [
            self._delete_some_records,
            self._list_some_offsets,
            self._list_some_offsets,
            self._grow,
        ]
        if self._retention_ms or self._retention_bytes:
            operations.append(self._alter_retention)
        if self._scratch:
            operations += [self._create_or_delete, self._create_or_delete]
        if self._tables:
            operations.append(self._toggle_table)
        return operations

    # -- single requests ---------------------------------------------------------------------------------------------

    async def create(self, name: str, partitions: int, configs: Mapping[str, str] | None = None) -> bool:
        self._wishes(name, configs or {})
        topic = CreatableTopic(
            name=name,
            num_partitions=partitions,
            replication_factor=1,
            configs=tuple(CreatableTopicConfig(name=k, value=v) for k, v in (configs or {}).items()),
        )
        answer = await self._ask(ApiKey.CREATE_TOPICS, CreateTopicsRequest(topics=(topic,)), CREATE_VERSION)
        if answer is None:
            return False
        (result,) = answer.topics
        if not self._done(result.error_code, f"create {name}", ErrorCode.TOPIC_ALREADY_EXISTS):
            await self.client.refresh([name])  # perhaps it was us, and the answer was lost: the ledger must hear of it
            return False
        self._ledger.created(result.topic_id, name, partitions)
        return True

    async def delete(self, topic_id: UUID) -> bool:
        self._ledger.deleting(topic_id)
        request = DeleteTopicsRequest(topics=(DeleteTopicState(topic_id=topic_id),), timeout_ms=30_000)
        answer = await self._ask(ApiKey.DELETE_TOPICS, request, DELETE_VERSION)
        if answer is None:
            return False
        (result,) = answer.responses
        if not self._done(result.error_code, f"delete {topic_id}", ErrorCode.UNKNOWN_TOPIC_ID):
            return False
        self._ledger.deleted(topic_id)
        return True

    async def create_partitions(self, name: str, count: int) -> bool:
        topic = CreatePartitionsTopic(name=name, count=count, assignments=None)
        request = CreatePartitionsRequest(topics=(topic,), timeout_ms=30_000)
        answer = await self._ask(ApiKey.CREATE_PARTITIONS, request, CREATE_PARTITIONS_VERSION)
        return answer is not None and self._done(
            answer.results[0].error_code, f"grow {name}", ErrorCode.INVALID_PARTITIONS
        )

    async def alter_configs(self, name: str, configs: Mapping[str, str]) -> bool:
        self._wishes(name, configs)
        resource = AlterConfigsResource(
            resource_type=TOPIC_RESOURCE,
            resource_name=name,
            configs=tuple(AlterableConfig(name=k, config_operation=SET, value=v) for k, v in configs.items()),
        )
        request = IncrementalAlterConfigsRequest(resources=(resource,))
        answer = await self._ask(ApiKey.INCREMENTAL_ALTER_CONFIGS, request, ALTER_VERSION)
        return answer is not None and self._done(answer.responses[0].error_code, f"alter {name}")

    async def delete_records(self, place: Place, offset: int) -> bool:
        """-1: everything that is there."""
        name = self.client.topic_name(place)
        self._ledger.deletes_records(name, place.partition, offset)
        partition = DeleteRecordsPartition(partition_index=place.partition, offset=offset)
        request = DeleteRecordsRequest(
            topics=(DeleteRecordsTopic(name=name, partitions=(partition,)),), timeout_ms=30_000
        )
        answer = await self._ask_leader(place, ApiKey.DELETE_RECORDS, request, DELETE_RECORDS_VERSION)
        if answer is None:
            return False
        result = answer.topics[0].partitions[0]
        if not self._done(result.error_code, f"delete records of {place}", ErrorCode.OFFSET_OUT_OF_RANGE):
            return False
        if result.low_watermark < offset:
            raise Violation(f"{place} was to start at {offset}, and was answered {result.low_watermark}")
        return True

    async def list_offsets(self, place: Place, timestamp: int) -> int | None:
        """The start (-2) or the end (-1) of a partition as its leader sees it."""
        leader = self.client.leaders.get(place)
        if leader is None:
            return None
        asked = self._ledger.ask(place, leader.epoch)
        partition = ListOffsetsPartition(
            partition_index=place.partition, current_leader_epoch=leader.epoch, timestamp=timestamp
        )
        topic = ListOffsetsTopic(name=self.client.topic_name(place), partitions=(partition,))
        request = ListOffsetsRequest(replica_id=-1, isolation_level=READ_COMMITTED, topics=(topic,))
        answer = await self._ask_leader(place, ApiKey.LIST_OFFSETS, request, LIST_OFFSETS_VERSION)
        if answer is None or not await self._is_still(place):
            return None
        found = answer.topics[0].partitions[0]
        if not self._done(found.error_code, f"list offsets of {place}"):
            return None
        if timestamp == EARLIEST:
            self._ledger.answered(asked, log_start_offset=found.offset)
        else:
            self._ledger.answered(asked, last_stable_offset=found.offset)
        return int(found.offset)

    # -- what `run` does ---------------------------------------------------------------------------------------------

    async def _delete_some_records(self) -> bool:
        place = self._some_place()
        if place is None:
            return False
        start = self._ledger.partition(place).log_start_offset.highest
        end = self._ledger.partition(place).high_watermark.highest
        everything = self.client.rng.random() < 0.1
        return await self.delete_records(place, -1 if everything else self.client.rng.randint(start, max(start, end)))

    async def _list_some_offsets(self) -> bool:
        place = self._some_place()
        return (
            place is not None and await self.list_offsets(place, self.client.rng.choice([LATEST, EARLIEST])) is not None
        )

    async def _grow(self) -> bool:
        place = self._some_place()
        if place is None:
            return False
        facts = self._ledger.topics[place.topic_id]
        if facts.partitions >= self._partitions_max:
            return False
        return await self.create_partitions(facts.name, facts.partitions + 1)

    async def _alter_retention(self) -> bool:
        place = self._some_place()
        if place is None:
            return False
        rng, configs = self.client.rng, {}
        if self._retention_ms:
            configs[RETENTION_MS] = str(rng.choice(self._retention_ms))
        if self._retention_bytes:
            configs[RETENTION_BYTES] = str(rng.choice(self._retention_bytes))
        return await self.alter_configs(self.client.topic_name(place), configs)

    async def _create_or_delete(self) -> bool:
        name = self.client.rng.choice(self._scratch)
        topic_id = self.client.ids.get(name)
        if topic_id is None:
            return await self.create(name, self.client.rng.randint(1, 3))
        return await self.delete(topic_id)

    async def _toggle_table(self) -> bool:
        on = self.client.rng.random() < 0.7
        return await self.alter_configs(self.client.rng.choice(self._tables), {TABLE_ENABLE: str(on).lower()})

    # -- asking ------------------------------------------------------------------------------------------------------

    def _some_place(self) -> Place | None:
        places = self.client.places([*self._lasting, *self._scratch])
        return self.client.rng.choice(places) if places else None

    def _wishes(self, name: str, configs: Mapping[str, str]) -> None:
        ms, size_bytes = configs.get(RETENTION_MS), configs.get(RETENTION_BYTES)
        self._ledger.retains(name, int(ms) if ms else None, int(size_bytes) if size_bytes else None)

    async def _ask(self, key: ApiKey, request: Struct, max_version: int) -> Any:
        """The answer of any broker; None: nobody knows what came of it."""
        address = self.client.some_address()
        try:
            return None if address is None else await self.client.call(address, key, request, max_version)
        except Unavailable:
            return None

    async def _ask_leader(self, place: Place, key: ApiKey, request: Struct, max_version: int) -> Any:
        leader = self.client.leaders.get(place)
        try:
            return None if leader is None else await self.client.call(leader.address, key, request, max_version)
        except Unavailable:
            return None

    async def _is_still(self, place: Place) -> bool:
        """Whether the name still is this topic's, asked of the same broker: then it was all along."""
        topic = MetadataRequestTopic(name=self.client.topic_name(place))
        request = MetadataRequest(topics=(topic,), allow_auto_topic_creation=False)
        answer = await self._ask_leader(place, ApiKey.METADATA, request, METADATA_VERSION)
        return answer is not None and answer.topics[0].topic_id == place.topic_id

    def _done(self, error_code: int, what: str, *expected: ErrorCode) -> bool:
        """False for an error that may happen. Violation for one that must not."""
        code = ErrorCode(error_code)
        if code == ErrorCode.NONE:
            return True
        gone = (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_ID)
        if not (code.retriable or code in expected or code in gone):
            raise Violation(f"{what}: {code.name}")
        return False

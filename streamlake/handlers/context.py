"""What a handler may touch, and where the topic and partition of a request lead.

Handlers are functions of (Context, Exchange): they translate between the wire and the packages below and keep
no state of their own. An Exchange is one request on one connection.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from streamlake.cluster.broker_configs import BrokerConfigs
from streamlake.cluster.brokers import Brokers
from streamlake.cluster.image import CatchUp
from streamlake.cluster.secret import ClusterSecret, Life
from streamlake.cluster.slots import Slots
from streamlake.cluster.store.administration import Administration
from streamlake.cluster.store.resource_configs import ResourceConfigs
from streamlake.cluster.store.topic_rows import TopicInfo
from streamlake.cluster.topics import Topics
from streamlake.coordinator.consumer_members import ConsumerMembers
from streamlake.coordinator.groups import Groups
from streamlake.coordinator.offsets import Offsets
from streamlake.coordinator.producer_ids import ProducerIds
from streamlake.coordinator.transactions import Transactions
from streamlake.coordinator.txn_offsets import TxnOffsets
from streamlake.core.account import Account
from streamlake.core.clock import Clock
from streamlake.core.deadlines import Deadlines
from streamlake.core.ids import Ids
from streamlake.core.tasks import Executor
from streamlake.handlers.fetch_session import FetchSessions
from streamlake.handlers.handovers import Handovers
from streamlake.log.manager import LogManager
from streamlake.log.partition import Partition
from streamlake.log.transactions_port import TransactionsPort
from streamlake.protocol.errors import ErrorCode
from streamlake.s3stream.streams import Streams

TIMEOUT_MS_MAX = 600_000


@dataclass(frozen=True, slots=True)
class Context:
    administration: Administration
    brokers: Brokers
    secret: ClusterSecret
    topics: Topics
    catch_up: CatchUp  # of topics
    broker_configs: BrokerConfigs
    resource_configs: ResourceConfigs
    logs: LogManager
    handovers: Handovers
    streams: Streams
    slots: Slots
    groups: Groups
    consumer_members: ConsumerMembers
    offsets: Offsets
    producer_ids: ProducerIds
    transactions: Transactions  # that this broker coordinates
    transactions_port: TransactionsPort  # of the whole cluster
    txn_offsets: TxnOffsets
    fetch_sessions: FetchSessions
    connection_memory: Account  # of the requests and answers of all connections
    deadlines: Deadlines
    checks: Executor  # of batches whose decompression takes longer than the loop can spare
    clock: Clock
    ids: Ids


class Exchange(Protocol):
    """One request: its decoded body, its version, who sent it."""

    version: int
    body: Any
    client_id: str | None
    client_host: str
    peer: Life | None  # the broker that asks, if this connection is one of a broker: hello.py sets it
    work_bytes: int  # to be added to: what `begin` did beyond its size, a byte received being the measure

    def release(self) -> None:
        """Let the connection start its next request before this one is answered (Produce and Fetch only)."""
        ...

    def thread_started(self) -> None:
        """A thread alone works on this request now. It ends soon and waits for nobody, so a connection whose client has
        closed its side stays open until then, and begins what the client sent before."""
        ...

    def thread_ended(self) -> None: ...

    def answer(self, response: Any) -> None:
        """Of a request that was begun (`Begin`), once: its response, or None if it has none."""
        ...

    def fail(self, error: Exception) -> None:
        """Instead of `answer`: something that must not happen. It ends the connection."""
        ...


Handle = Callable[[Context, Exchange], Awaitable[Any]]
# Do at once all that need not wait; True: the answer comes, or came, by `Exchange.answer`. False: nothing was done.
Begin = Callable[[Context, Exchange], bool]


def default_partitions(ctx: Context) -> int:
    count = ctx.broker_configs.value("num.partitions")
    assert isinstance(count, int)
    return count


class Located(NamedTuple):
    """Where a request's (topic, partition) leads; `partition` is None exactly if `code` is not NONE."""

    code: ErrorCode
    partition: Partition | None


def find_topic(ctx: Context, name: str, topic_id: UUID | None) -> TopicInfo | ErrorCode:
    """By id where the request has one (newer versions), else by name."""
    if topic_id is not None:
        return ctx.topics.by_id(topic_id) or ErrorCode.UNKNOWN_TOPIC_ID
    return ctx.topics.get(name) or ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def find_partition(ctx: Context, topic: TopicInfo | ErrorCode, index: int, leader_epoch: int = -1) -> Located:
    """The open partition; `leader_epoch` is the client's idea of it (KIP-320), -1 if it has none."""
    if isinstance(topic, ErrorCode):
        return Located(topic, None)
    partition = ctx.logs.get(topic.id, index)
    if partition is None:
        known = 0 <= index < len(topic.partitions)
        return Located(ErrorCode.NOT_LEADER_OR_FOLLOWER if known else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, None)
    if leader_epoch > partition.leader_epoch:
        return Located(ErrorCode.UNKNOWN_LEADER_EPOCH, None)
    if 0 <= leader_epoch < partition.leader_epoch:
        return Located(ErrorCode.FENCED_LEADER_EPOCH, None)
    return Located(ErrorCode.NONE, partition)

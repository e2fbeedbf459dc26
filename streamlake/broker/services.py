"""All of a broker between its sockets and its stores, in the order in which it starts.

    metadata → registration (registration.py; fences whoever was this node before) → beats
             → WALs (takeover.py) → streams
             → topics and partitions → slots → groups, offsets, producer ids, transactions → schema registry

Everything comes from a Machine, so a simulated cluster runs these very services. What listens, and the table worker,
are added by broker.py. `stop` undoes what was started, in reverse, whatever fails.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

import structlog

from streamlake.broker.catalogs import catalogs_of
from streamlake.broker.controller import Controller
from streamlake.broker.departure import Departure
from streamlake.broker.hanging_transactions import HangingTransactions
from streamlake.broker.machine import Machine, metadata_url, store_url, wal_uri
from streamlake.broker.markers import MarkerSender
from streamlake.broker.ownership import Partitions
from streamlake.broker.peers import Peers
from streamlake.broker.pokes import Pokes
from streamlake.broker.registration import Registration
from streamlake.broker.table_rules import CatalogRules
from streamlake.broker.takeover import Takeover
from streamlake.broker.transactions import ClusterTransactions
from streamlake.broker.wal import WalOpener
from streamlake.cluster.broker_configs import BrokerConfigs
from streamlake.cluster.brokers import Brokers
from streamlake.cluster.image import CatchUp, keep_fresh
from streamlake.cluster.slots import Slots
from streamlake.cluster.store.administration import Administration
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.groups import GroupStore
from streamlake.cluster.store.membership import BEAT_ANSWER_TIMEOUT_S, Membership
from streamlake.cluster.store.producer_ids import ProducerIdBlocks
from streamlake.cluster.store.resource_configs import ResourceConfigs
from streamlake.cluster.store.schemas import SchemaStore
from streamlake.cluster.store.slots import SlotStore
from streamlake.cluster.store.stream_metadata import SqlStreamMetadata
from streamlake.cluster.store.table_progress import TableProgress
from streamlake.cluster.store.topic_rows import TopicInfo
from streamlake.cluster.store.transactions import TransactionStore
from streamlake.cluster.store.wals import Wals, all_wals
from streamlake.cluster.topics import Topics
from streamlake.config import Config, environment
from streamlake.coordinator.consumer.assignors import ASSIGNORS
from streamlake.coordinator.consumer_members import ConsumerMembers, shape_of
from streamlake.coordinator.groups import Groups
from streamlake.coordinator.offsets import Offsets
from streamlake.coordinator.producer_ids import ProducerIds
from streamlake.coordinator.settings import GroupSettings, TransactionSettings
from streamlake.coordinator.transactions import Transactions
from streamlake.coordinator.txn_offsets import TxnOffsets
from streamlake.core.budget import Budget
from streamlake.core.deadlines import Deadlines
from streamlake.core.errors import Invalid, StreamLakeError, Unavailable
from streamlake.core.tasks import Supervisor
from streamlake.handlers import write_markers
from streamlake.handlers.context import Context
from streamlake.handlers.fetch import RESPONSE_BYTES_MAX
from streamlake.handlers.fetch_session import FetchSessions
from streamlake.handlers.handovers import Handovers
from streamlake.handlers.leaders import leader_of
from streamlake.log.manager import LogManager
from streamlake.protocol.broker_messages.write_markers import WriteMarkersRequest, WriteMarkersResponse
from streamlake.registry.schema_registry import SchemaRegistry
from streamlake.s3stream.settings import StreamsSettings
from streamlake.s3stream.store.cluster_marker import claim
from streamlake.s3stream.streams import Streams
from streamlake.server.memory import ConnectionMemory

log = structlog.get_logger(__name__)

CLAIM_RETRY_S = 0.2
CHECK_THREADS = 2  # each decompresses into memory of its own: record/compression.py

Undo = Callable[[], Awaitable[None] | None]


class Services:
    """`start`, then all attributes are there. `on_fatal`: something that cannot be survived; the process must end."""

    identity: BrokerIdentity
    administration: Administration
    brokers: Brokers
    pokes: Pokes
    streams: Streams
    topics: Topics
    configs: BrokerConfigs
    progress: TableProgress
    logs: LogManager
    handovers: Handovers
    partitions: Partitions
    connection_memory: ConnectionMemory
    slots: Slots
    groups: Groups
    consumer_members: ConsumerMembers
    offsets: Offsets
    producer_ids: ProducerIds
    markers: MarkerSender
    transactions: Transactions
    transactions_port: ClusterTransactions
    registry: SchemaRegistry

    def __init__(self, config: Config, machine: Machine, on_fatal: Callable[[BaseException], None]) -> None:
        self.tasks = Supervisor(lambda name, error: self.fail(error))
        self.catalogs = catalogs_of(config, environment())
        self._config = config
        self._machine = machine
        self._on_fatal = on_fatal
        self._failed = False
        self._in_a_hurry = False
        self._undo: list[tuple[str, Undo]] = []

    async def start(self, host: str, port: int) -> None:
        """`host` and `port`: where clients are told to find us. After an error, `stop` undoes what was done."""
        await self._start_metadata(host, port)
        await self._start_streams()
        await self._start_partitions(host)
        await self._start_coordinator()
        self.registry = SchemaRegistry(SchemaStore(self.database, self.identity), self._machine.executor("registry"))

    async def _start_metadata(self, host: str, port: int) -> None:
        machine, config = self._machine, self._config
        with _named("storage.metadata_url"):
            self.database = await machine.open_metadata(metadata_url(config))
        self._undo.append(("metadata", self.database.close))
        self._beats = self.database.beside(machine.executor("beats"), BEAT_ANSWER_TIMEOUT_S)
        self.coordination = self.database.beside(machine.executor("coordination"))
        self.membership = Membership(self.database, self._beats, machine.clock, machine.ids)
        self.identity = await Registration(config, machine, self.database, self.membership).register(host, port)
        self._undo.append(("membership", self.membership.leave))
        self._undo.append(("tasks", self.tasks.stop))
        self.administration = Administration(self.coordination, self.identity)
        self.brokers = Brokers(self.identity, host, port)
        self.membership.listeners.append(self.brokers.seen)
        self.pokes = Pokes(self.brokers, self.membership.secret, self.tasks)
        self._undo.append(("pokes", self.pokes.close))
        if not self.database.is_ours_alone:
            self.brokers.listeners.append(self.pokes.follow)
            for database in (self.database, self.coordination):
                database.listeners += [self.brokers.revised, self.pokes.tell]
        self.tasks.start("beats", self.membership.run())
        values = kafka_values(config, self.identity.node, host, port)
        self.configs = BrokerConfigs(self.database, self.identity, config.kafka, values)
        await self.configs.refresh()
        self.brokers.images.append(self.configs)
        self.tasks.start("image of configs", keep_fresh(self.configs.stale, self.configs.refresh))

    async def _start_streams(self) -> None:
        machine, identity = self._machine, self.identity
        url, key = store_url(self._config), _store_key(self._config)
        with _named(key):
            self.store = await machine.open_store(url)
        self._undo.append(("object store", self.store.close))
        used_before = bool(await all_wals(self.database))
        try:
            with _named(key):
                await claim(self.store, identity.cluster_id, url, used_before=used_before)
        except Unavailable:
            if not used_before or wal_uri(self._config).kind != "file":
                raise
            # A file WAL serves while the store is away. The marker is read once the store answers; a wrong one ends us.
            self.tasks.start("cluster marker", self._claim_later())
        settings = streams_settings(self._config)
        opener = WalOpener(self._config, machine, self.database, self.membership, self.store)
        self._undo.append(("wal store", opener.close))
        self.takeover = Takeover(opener, machine, self.database, identity, self.store, settings)
        self.wal, self.wal_key = await opener.open_wal(await self.takeover.drain_own())
        self.tasks.start("sweep of earlier WALs", self.takeover.sweep_own())
        budget = Budget(self._config.memory.total_bytes)
        self.streams = Streams(
            self.store,
            self.wal,
            SqlStreamMetadata(self.database, identity, self.wal_key),
            machine.ids,
            settings,
            budget,
            self.fail,
            lambda: self._is_controller,
        )
        self._undo.append(("streams", self._close_streams))
        await self.streams.start()
        self._opener = opener
        self.connection_memory = ConnectionMemory(budget.take_rest("connections"))

    async def _claim_later(self) -> None:
        while True:
            await asyncio.sleep(CLAIM_RETRY_S)
            try:
                url = store_url(self._config)
                await claim(self.store, self.identity.cluster_id, url, used_before=True)
                return
            except Unavailable:
                continue

    async def _close_streams(self) -> None:
        """A clean stop uploads first and gives up the streams: the next start has nothing to replay, and another broker
        may open them. A store outage cannot hold it up."""
        timeout_s = self._config.server.shutdown_timeout_s
        if not self._failed:
            try:
                async with asyncio.timeout(timeout_s):
                    await self.streams.flush()
                    await self.streams.close_streams()
            except (TimeoutError, StreamLakeError) as error:
                log.warning("not all was uploaded; the write-ahead log keeps it", reason=str(error))
        try:
            async with asyncio.timeout(timeout_s):
                await self.streams.close()
        except TimeoutError:
            log.warning("records that were not acknowledged could not be written any more", timeout_s=timeout_s)

    async def _start_partitions(self, host: str) -> None:
        clock, ids = self._machine.clock, self._machine.ids
        rules = CatalogRules(self.catalogs, self.configs)
        self.topics = Topics(self.database, self.identity, clock, ids, rules=rules)
        await self.topics.refresh()
        self._catch_up = CatchUp(self.database, self.topics)
        self.brokers.images.append(self.topics)
        self.tasks.start("image of topics", keep_fresh(self.topics.stale, self.topics.refresh))
        self.controller = Controller(
            self._opener,
            self.takeover,
            self.database,
            self._beats,
            self.membership,
            self.brokers,
            self.topics,
            clock,
            host,
        )
        self.brokers.images.append(self.controller)
        await self.controller.round()  # a broker alone takes over what is left, and assigns it to itself
        await self.takeover.drain_given()
        self.tasks.start("controller", self.controller.run())
        self.tasks.start("takeover", self.takeover.run())
        self.progress = TableProgress(self.database, self.identity)
        self.logs = LogManager(clock, self._machine.executor("log"))
        self._undo.append(("partitions", self.logs.close_all))
        self._deadlines = Deadlines(asyncio.get_running_loop())
        self.handovers = Handovers(self.brokers, self.topics, self.logs, self._deadlines)
        following = Supervisor(lambda name, error: self.fail(error))
        self._undo.append(("partition tasks", following.stop))
        interval_s = self._config.storage.retention_interval_s
        self.partitions = Partitions(
            self.identity.node,
            self.topics,
            self.configs,
            self.progress,
            self.streams,
            self.logs,
            self.handovers,
            following,
            interval_s,
        )
        await self.partitions.start(Wals(self.database, self.identity), self.wal_key)

    async def _start_coordinator(self) -> None:
        clock, ids, groups = self._machine.clock, self._machine.ids, self._config.groups
        self.slots = Slots(SlotStore(self.coordination, self.identity), self.identity.node)
        # Those of living brokers stay with them.
        await self.slots.take_free()
        self.brokers.images.append(self.slots)
        self.tasks.start("image of slots", keep_fresh(self.slots.stale, self.slots.refresh))
        store = GroupStore(self.coordination, self.identity, self.slots.stale.set)
        self.groups = Groups(
            store, self.slots, clock, ids, GroupSettings(**groups.model_dump()), partial(shape_of, self.topics)
        )
        self.offsets = Offsets(self.groups, store, clock, self._has_partition)
        await self.groups.start()
        self._undo.append(("groups", self.groups.stop))
        self.consumer_members = ConsumerMembers(self.groups, self.topics, self._machine.executor("patterns"))
        await self.consumer_members.start()
        self._undo.append(("topics of consumer groups", self.consumer_members.stop))
        self.producer_ids = ProducerIds(ProducerIdBlocks(self.coordination, self.identity))
        await self._start_transactions()

    async def _start_transactions(self) -> None:
        clock, ids, settings = self._machine.clock, self._machine.ids, self._config.transactions
        node, topics = self.identity.node, self.topics
        store = TransactionStore(self.coordination, self.identity, self.slots.stale.set)
        peers = Peers(self.brokers, self.membership.secret, self.tasks)
        self._undo.append(("connections to brokers", peers.close))

        def leader(topic: TopicInfo, index: int) -> int:
            return leader_of(self, topic, index).node

        self.markers = MarkerSender(node, topics, self._catch_up, leader, peers, self._write_markers, self.tasks)
        self.transactions = Transactions(
            store,
            self.slots,
            self.producer_ids,
            self.markers,
            clock,
            ids,
            TransactionSettings(**settings.model_dump()),
        )
        self.transactions_port = ClusterTransactions(node, self.slots, self.transactions, store, peers, self.tasks)
        self._txn_offsets = TxnOffsets(self.groups, self.offsets, store, self.transactions_port.join_group)
        hanging = HangingTransactions(self.logs, self.streams, self.transactions_port)
        self.tasks.start("hanging transactions", hanging.run())
        await self.transactions.start()
        self._undo.append(("transactions", self.transactions.stop))

    async def _write_markers(self, request: WriteMarkersRequest) -> WriteMarkersResponse:
        return await write_markers.write(self.logs, self.streams, request)

    def context(self) -> Context:
        """What handlers need."""
        machine = self._machine
        return Context(
            administration=self.administration,
            brokers=self.brokers,
            secret=self.membership.secret,
            topics=self.topics,
            catch_up=self._catch_up,
            broker_configs=self.configs,
            resource_configs=ResourceConfigs(self.database, self.identity),
            logs=self.logs,
            handovers=self.handovers,
            streams=self.streams,
            slots=self.slots,
            groups=self.groups,
            consumer_members=self.consumer_members,
            offsets=self.offsets,
            producer_ids=self.producer_ids,
            transactions=self.transactions,
            txn_offsets=self._txn_offsets,
            fetch_sessions=FetchSessions(machine.ids),
            connection_memory=self.connection_memory,
            deadlines=self._deadlines,
            checks=machine.executor("checks", CHECK_THREADS),
            clock=machine.clock,
            ids=machine.ids,
            transactions_port=self.transactions_port,
        )

    async def move_away(self) -> None:
        """The first step of a clean stop, while all of this serves. Nothing, if the process must end anyway."""
        timeout_s = self._config.server.drain_timeout_s
        parts = self.membership, self.brokers, self.streams, self.slots
        await Departure(*parts, lambda: self._failed or self._in_a_hurry, timeout_s).run()

    def hurry(self) -> None:
        """A clean stop does not wait for other brokers any more."""
        self._in_a_hurry = True

    async def stop(self) -> None:
        await undo_all(self._undo)

    def problems(self) -> list[str]:
        """What is wrong now, in words for an operator."""
        problems = []
        if not self.membership.held():
            problems.append("the lease has run out: the metadata store cannot be reached")
        if self.partitions.unopened:
            problems.append(f"{self.partitions.unopened} partitions are not open: see the log")
        for part, error in self.takeover.failing.items():
            problems.append(f"the WAL {part.wal.uri} of node {part.wal.node} cannot be drained: {error}")
        return problems

    @property
    def _is_controller(self) -> bool:
        controller: Controller | None = getattr(self, "controller", None)  # not made yet while this broker starts
        return controller is not None and controller.is_active

    def _has_partition(self, name: str, index: int) -> bool:
        topic = self.topics.get(name)
        return topic is not None and 0 <= index < len(topic.partitions)

    def fail(self, error: BaseException) -> None:
        """Something that cannot be survived: nothing is moved or uploaded any more."""
        self._failed = True
        self._on_fatal(error)


async def undo_all(undo: list[tuple[str, Undo]]) -> None:
    """The last first. One that fails is told in the log, and the others are still undone."""
    while undo:
        what, step = undo.pop()
        try:
            done = step()
            if done is not None:
                await done
        except StreamLakeError as error:  # a store that is away
            log.warning("did not stop cleanly", part=what, reason=str(error))
        except Exception:
            log.exception("did not stop cleanly", part=what)


def streams_settings(config: Config) -> StreamsSettings:
    storage, memory = config.storage, config.memory
    return StreamsSettings(
        log_cache_bytes=memory.log_cache_bytes,
        block_cache_bytes=memory.block_cache_bytes,
        upload_bytes=storage.upload_bytes,
        object_bytes=min(StreamsSettings().object_bytes, memory.log_cache_bytes // 2),  # no round of uploads has more
        upload_interval_ms=int(storage.upload_interval_s * 1000),
        gc_interval_ms=int(storage.gc_interval_s * 1000),
        gc_grace_ms=int(storage.gc_grace_s * 1000),
        compaction_interval_ms=int(storage.compaction_interval_s * 1000),
        compaction_bytes_per_s=storage.compaction_bytes_per_s,
    )


def kafka_values(config: Config, node: int, host: str, port: int) -> dict[str, str]:
    """The keys of cluster/config/broker_docs.OWN, with the values in force. Clients are told `node`, `host`, `port`."""
    server, groups = config.server, config.groups
    data_dir = str(config.storage.data_dir.absolute())
    values: dict[str, str | int] = {
        "node.id": node,
        "broker.id": node,
        "process.roles": "broker",
        "listeners": _listener(server.host, server.port or port),
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT",
        "advertised.listeners": _listener(host, port),
        "log.dir": data_dir,
        "log.dirs": data_dir,
        "log.retention.check.interval.ms": round(config.storage.retention_interval_s * 1000),
        "socket.request.max.bytes": server.request_bytes_max,
        "max.connections": server.connections_max,
        "fetch.max.bytes": RESPONSE_BYTES_MAX,
        "offset.metadata.max.bytes": GroupSettings().offset_metadata_bytes_max,
        "group.initial.rebalance.delay.ms": groups.initial_rebalance_delay_ms,
        "group.min.session.timeout.ms": groups.session_timeout_min_ms,
        "group.max.session.timeout.ms": groups.session_timeout_max_ms,
        "group.max.size": groups.group_size_max,
        "group.consumer.session.timeout.ms": groups.consumer_session_timeout_ms,
        "group.consumer.heartbeat.interval.ms": groups.consumer_heartbeat_interval_ms,
        "group.consumer.max.size": groups.group_size_max,
        "group.consumer.migration.policy": "disabled",
        "group.consumer.assignors": ",".join(ASSIGNORS),
        "offsets.retention.minutes": groups.offsets_retention_ms // 60_000,
        "transaction.max.timeout.ms": config.transactions.timeout_max_ms,
        "transactional.id.expiration.ms": config.transactions.id_expiration_ms,
    }
    return {key: str(value) for key, value in values.items()}


def _listener(host: str, port: int) -> str:
    return f"PLAINTEXT://{f'[{host}]' if ':' in host else host}:{port}"


@contextmanager
def _named(key: str) -> Iterator[None]:
    """What goes wrong with a thing that the configuration names says which key that is."""
    try:
        yield
    except Unavailable as error:
        raise Unavailable(f"{key}: {error}") from error
    except Invalid as error:
        raise Invalid(f"{key}: {error}") from error


def _store_key(config: Config) -> str:
    url = config.storage.url
    if url is None:
        return f"storage.data_dir = {config.storage.data_dir}"
    endpoint = f", s3.endpoint = {config.s3.endpoint}" if config.s3.endpoint and not url.startswith("file:") else ""
    return f"storage.url = {url}{endpoint}"

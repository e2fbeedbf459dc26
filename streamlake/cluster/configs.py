"""Broker configs that clients see and may change: defaults of topic configs, and a few rules of this broker.

A value is found, strongest first, among what was set for this broker, for all brokers, in the configuration file,
and the built-in default. What only the file can say (addresses, directories, memory) is not here: see config.py.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping

from sqlalchemy import Connection, delete, select

from streamlake.cluster import tables
from streamlake.cluster.config_def import (
    INT32_MAX,
    ConfigDef,
    ConfigDefs,
    ConfigEntry,
    ConfigSource,
    ConfigType,
    Layer,
    Value,
    boolean,
    integer,
)
from streamlake.cluster.database import Database
from streamlake.cluster.membership import BrokerIdentity, require_current
from streamlake.cluster.tables import in_lists, lock_revision, next_revision, upsert
from streamlake.cluster.topic_configs import TOPIC_CONFIGS
from streamlake.core.errors import OutcomeUnknown

ALL_BROKERS = -1  # the row that holds for every node

_OWN_CONFIGS = (
    ConfigDef("num.partitions", ConfigType.INT, "1", integer(1, INT32_MAX),
              "Partitions of a topic that is created without a number.", "num.partitions"),
    ConfigDef("auto.create.topics.enable", ConfigType.BOOLEAN, "true", boolean,
              "Create a topic when a client first asks for it.", "auto.create.topics.enable"),
    ConfigDef("delete.topic.enable", ConfigType.BOOLEAN, "true", boolean,
              "Allow topics to be deleted.", "delete.topic.enable"),
    ConfigDef("default.replication.factor", ConfigType.INT, "1", integer(1, 32_767),
              "Accepted and without effect: durability is the object storage's.", "default.replication.factor"),
)  # fmt: skip


def _topic_default(definition: ConfigDef, broker_key: str) -> ConfigDef:
    return ConfigDef(
        broker_key,
        definition.type,
        definition.default,
        definition.parser,
        f"Default of the topic config {definition.name}. {definition.doc}",
        broker_key,
        definition.aliases if definition.name == broker_key else (),
    )


BROKER_CONFIGS = ConfigDefs(
    "broker", (*_OWN_CONFIGS, *(_topic_default(d, d.broker_key) for d in TOPIC_CONFIGS if d.broker_key))
)


Rows = dict[int, dict[str, str]]  # node → its dynamic configs


class BrokerConfigs:
    """The image of the broker configs, and the way to change them. `refresh` once before use."""

    def __init__(self, database: Database, identity: BrokerIdentity, static: Mapping[str, str]) -> None:
        """`static` is what the configuration file says; Invalid if a key or value of it is wrong."""
        self.listeners: list[Callable[[frozenset[str]], None]] = []  # called with the keys whose value may be new
        self._database = database
        self._identity = identity
        self._static = BROKER_CONFIGS.check(static)
        self._dynamic: Rows = {}
        self.stale = asyncio.Event()  # something was missed; image.keep_fresh reads it

    def layers(self) -> list[Layer]:
        """What was set for this broker, strongest first."""
        return [
            Layer(ConfigSource.DYNAMIC_BROKER, self._dynamic.get(self._identity.node, {})),
            Layer(ConfigSource.DYNAMIC_DEFAULT_BROKER, self._dynamic.get(ALL_BROKERS, {})),
            Layer(ConfigSource.STATIC_BROKER, self._static),
        ]

    def topic_layers(self, explicit: Mapping[str, str]) -> list[Layer]:
        """The layers under which a topic with these explicit configs lives."""
        return [Layer(ConfigSource.DYNAMIC_TOPIC, explicit), *self.layers()]

    def value(self, name: str) -> Value:
        """The value in force of a broker config, typed."""
        return BROKER_CONFIGS[name].parse(BROKER_CONFIGS.describe(name, self.layers()).value)

    def entries(self) -> list[ConfigEntry]:
        """Everything in force at this broker."""
        return [BROKER_CONFIGS.describe(d.name, self.layers()) for d in BROKER_CONFIGS]

    def all_brokers(self) -> Mapping[str, str]:
        """What was set for all brokers."""
        return self._dynamic.get(ALL_BROKERS, {})

    async def refresh(self) -> None:
        """Read the image again."""
        reading = self._database.read(_load)
        reading.add_done_callback(self._installed)
        await asyncio.shield(reading)

    async def alter(self, node: int | None, set_: Mapping[str, str], remove: Collection[str] = ()) -> None:
        """Set and remove configs of one broker, or of all (None). Invalid changes nothing."""
        values = BROKER_CONFIGS.check(set_)
        gone = sorted({BROKER_CONFIGS.canonical(name) for name in remove})
        where = ALL_BROKERS if node is None else node

        def run(connection: Connection) -> Rows:
            require_current(connection, self._identity)
            lock_revision(connection)
            c = tables.broker_config.c
            for names in in_lists(gone):
                connection.execute(delete(tables.broker_config).where((c.node == where) & c.key.in_(names)))
            rows = [{"node": where, "key": key, "value": value} for key, value in sorted(values.items())]
            upsert(connection, tables.broker_config, rows)
            loaded = _load(connection)
            next_revision(connection)
            return loaded

        # The image follows the commit even if the caller goes away: the callback belongs to the write, not to us.
        writing = self._database.write(run)
        writing.add_done_callback(self._installed)
        try:
            await asyncio.shield(writing)
        except OutcomeUnknown:
            self.stale.set()
            await self.refresh()
            raise

    def _installed(self, loading: "asyncio.Future[Rows]") -> None:
        if loading.cancelled() or loading.exception() is not None:
            return
        self.stale.clear()
        old, self._dynamic = self._dynamic, loading.result()
        if changed := frozenset(key for _, key, _ in _items(old) ^ _items(self._dynamic)):
            for listener in self.listeners:
                listener(changed)


def _load(connection: Connection) -> Rows:
    c = tables.broker_config.c
    loaded: Rows = {}
    for node, key, value in connection.execute(select(c.node, c.key, c.value).order_by(c.node, c.key)):
        loaded.setdefault(node, {})[key] = value
    return loaded


def _items(rows: Rows) -> set[tuple[int, str, str]]:
    return {(node, key, value) for node, configs in rows.items() for key, value in configs.items()}

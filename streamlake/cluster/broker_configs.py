"""Broker configs that clients see and may change: all of Kafka's, and defaults of `streamlake.table.*`.

The value in force is the first one that is set: for this broker, for all brokers, in the configuration file, or by
default. As in Kafka, some configs may be changed while the broker runs, and the others only in the file. A setting of
another section of the file (addresses, directories) is shown under the name that Kafka has for it, read-only.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping

from sqlalchemy import Connection, delete, func, select

from streamlake.cluster.config.broker_docs import HONOURED, OWN, family
from streamlake.cluster.config.definition import (
    ConfigDef,
    ConfigDefs,
    ConfigSource,
    ConfigType,
    Layer,
    Parser,
    Value,
    any_text,
    from_fact,
)
from streamlake.cluster.config.kafka import BROKER, QUOTA, Fact
from streamlake.cluster.config.topic import ACCEPTED, TOPIC_CONFIGS
from streamlake.cluster.store import schema
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.revision import Kind, changes_since, lock_revision, next_revision
from streamlake.cluster.store.schema import in_lists, upsert
from streamlake.core.errors import Invalid, OutcomeUnknown

ALL_BROKERS = -1  # node of the rows that apply to every broker
UNKNOWN_NAME_CHARS_MAX = 255
ROWS_MAX = 1_000  # configs that are set on one broker, or on all brokers


def _refused(default: str | None, why: str) -> Parser:
    def parse(value: str) -> Value:
        if value != (default or ""):
            raise ValueError(f"{why}; leave it out")
        return value

    return parse


def _of_kafka(fact: Fact, topic_defaults: Mapping[str, ConfigDef]) -> ConfigDef:
    name = fact.name
    topic = topic_defaults.get(name)
    if topic is not None:
        doc = f"Default of the topic config {topic.name}. {topic.doc}"
        return from_fact(fact, doc, topic.parser, name, dynamic=fact.dynamic)
    if name in HONOURED:
        return from_fact(fact, HONOURED[name], None, name, dynamic=fact.dynamic)
    if name in OWN:
        doc = f"Read-only here: set {OWN[name]} in the configuration file." if OWN[name] else "Read-only: fixed."
        return from_fact(fact, doc, any_text, name, dynamic=False)
    found = family(name)
    parser = _refused(fact.default, found.refused) if found.refused else None
    return from_fact(fact, found.doc, parser, name, dynamic=fact.dynamic)


def _definitions() -> Iterator[ConfigDef]:
    topic_defaults = {d.broker_key: d for d in TOPIC_CONFIGS if d.broker_key}
    for fact in BROKER:
        yield _of_kafka(fact, topic_defaults)
    for d in TOPIC_CONFIGS:
        if d.broker_key == d.name and d.name.startswith("streamlake."):
            doc = f"Default of the topic config of the same name. {d.doc}"
            yield ConfigDef(d.name, d.type, d.default, d.parser, doc, d.name, d.aliases)


BROKER_CONFIGS = ConfigDefs("broker", tuple(_definitions()))
# Listed only where they are set, as in Kafka.
QUOTA_CONFIGS = ConfigDefs(
    "broker",
    [
        from_fact(fact._replace(default=None), ACCEPTED + "quotas are not implemented yet.", None, fact.name)
        for fact in QUOTA
    ],
)


Rows = dict[int, dict[str, str]]  # node → its dynamic configs
Loaded = tuple[int, Rows | None]  # as of this revision; None: nothing has changed


class BrokerConfigs:
    """The image of the broker configs, and the way to change them. `refresh` once before use."""

    def __init__(
        self,
        database: Database,
        identity: BrokerIdentity,
        static: Mapping[str, str],
        in_force: Mapping[str, str] | None = None,
    ) -> None:
        """`static`: the section [kafka] of the configuration file, Invalid if a key or a value is wrong. `in_force`:
        the values of the keys that other sections of the file set."""
        self.listeners: list[Callable[[frozenset[str]], None]] = []  # called with the keys whose value may have changed
        self.followers: list[Callable[[], Awaitable[None]]] = []  # each returns when it has applied all changes so far
        self._database = database
        self._identity = identity
        self._static = {**check_static(static), **(in_force or {})}
        self._dynamic: Rows = {}
        self.revision = -1
        self.stale = asyncio.Event()  # a change was missed; image.keep_fresh reads the image again

    def layers(self) -> list[Layer]:
        """The configs of this broker, strongest first."""
        return [
            Layer(ConfigSource.DYNAMIC_BROKER, self._dynamic.get(self._identity.node, {})),
            Layer(ConfigSource.DYNAMIC_DEFAULT_BROKER, self._dynamic.get(ALL_BROKERS, {})),
            Layer(ConfigSource.STATIC_BROKER, self._static),
        ]

    def topic_layers(self, explicit: Mapping[str, str]) -> list[Layer]:
        """The layers that apply to a topic with these explicit configs."""
        return [Layer(ConfigSource.DYNAMIC_TOPIC, explicit), *self.layers()]

    def value(self, name: str) -> Value:
        """The value in force of a broker config, typed."""
        entry = BROKER_CONFIGS.describe(name, self.layers())
        assert entry.value is not None, f"{name} has no value"
        return entry.definition.parse(entry.value)

    async def refresh(self) -> None:
        """Read the image again, if it has changed."""
        seen = self.revision
        reading = self._database.read(lambda connection: _load_changed(connection, seen))
        reading.add_done_callback(self._installed)
        await asyncio.shield(reading)

    async def alter(self, node: int | None, set_: Mapping[str, str], remove: Collection[str] = ()) -> None:
        """Set and remove configs of one broker, or of all (None). They are in force here on return; Invalid changes
        nothing."""
        values = check_alter(set_)
        gone = sorted({BROKER_CONFIGS.canonical(name) if name in BROKER_CONFIGS else _name(name) for name in remove})
        where = ALL_BROKERS if node is None else node

        def run(connection: Connection) -> Loaded:
            lock_revision(connection)
            c = schema.broker_config.c
            for names in in_lists(gone):
                connection.execute(delete(schema.broker_config).where((c.node == where) & c.key.in_(names)))
            rows = [{"node": where, "key": key, "value": value} for key, value in sorted(values.items())]
            upsert(connection, schema.broker_config, rows)
            count = select(func.count()).where(c.node == where)
            if connection.execute(count).scalar_one() > ROWS_MAX:
                raise Invalid(f"at most {ROWS_MAX} configs may be set on a broker: delete some")
            rows_now = _load(connection)
            return next_revision(connection, Kind.BROKER_CONFIGS), rows_now

        # The image follows the commit even if the caller is cancelled: the callback belongs to the write.
        writing = self._database.write(run, self._identity)
        writing.add_done_callback(self._installed)
        try:
            await asyncio.shield(writing)
        except OutcomeUnknown:
            self.stale.set()
            await self.refresh()
            raise
        for follower in self.followers:
            await follower()

    def _installed(self, loading: "asyncio.Future[Loaded]") -> None:
        if loading.cancelled() or loading.exception() is not None:
            return
        self.stale.clear()
        revision, rows = loading.result()
        if revision < self.revision:
            return
        self.revision, old = revision, self._dynamic
        if rows is not None:
            self._dynamic = rows
        if changed := frozenset(key for _, key, _ in _items(old) ^ _items(self._dynamic)):
            for listener in self.listeners:
                listener(changed)


def definition_of(name: str) -> ConfigDef:
    """The definition of a key that may be set on a broker, even if no broker knows the key."""
    for definitions in (BROKER_CONFIGS, QUOTA_CONFIGS):
        if name in definitions:
            return definitions[name]
    doc = "This broker does not know it. It is kept, without effect, and not shown, as it may be a secret."
    return ConfigDef(name, ConfigType.UNKNOWN, None, any_text, doc, name, dynamic=False)


def check_alter(values: Mapping[str, str]) -> dict[str, str]:
    """Configs to set on a running broker, under canonical names. As in Kafka, keys that no broker knows are accepted,
    and kept for programs that know them. Invalid names the wrong key and its rule."""
    known: dict[str, str] = {}
    checked: dict[str, str] = {}
    for name, value in values.items():
        if name in BROKER_CONFIGS:
            known[name] = value
        elif name in QUOTA_CONFIGS:
            checked |= QUOTA_CONFIGS.check({name: value})
        else:
            checked[name] = _unknown(name, value)
    for name in known:
        definition = BROKER_CONFIGS[name]
        if not definition.dynamic:
            where = OWN.get(name, f"kafka.{name}")
            how = f"set {where} in the configuration file and restart" if where else "it is fixed"
            raise Invalid(f"{name} cannot be changed while the broker runs: {how}")
    return checked | BROKER_CONFIGS.check(known)


def _unknown(name: str, value: str) -> str:
    if _name(name).startswith("listener.name."):
        # Kafka configures TLS and SASL of one listener in this way: a user must not believe that they are enabled.
        raise Invalid(f"{name} is not supported: listeners have no configs of their own here")
    definition_of(name).parse(value)
    return value


def _name(name: str) -> str:
    if not 1 <= len(name) <= UNKNOWN_NAME_CHARS_MAX or "\0" in name:
        raise Invalid(f"the name of a config must have 1 to {UNKNOWN_NAME_CHARS_MAX} characters, none of them NUL")
    return name


def check_static(static: Mapping[str, str]) -> dict[str, str]:
    """The section [kafka] of the configuration file, under canonical names. Invalid names the wrong key."""
    for name in static:
        if name in OWN:
            raise Invalid(f"kafka.{name} is not used: {f'set {OWN[name]}' if OWN[name] else 'leave it out'}")
    return BROKER_CONFIGS.check(static)


def _load_changed(connection: Connection, seen: int) -> Loaded:
    """The configs are never older than the revision."""
    changes = changes_since(connection, seen)
    return changes.revision, _load(connection) if changes.may_concern(Kind.BROKER_CONFIGS) else None


def _load(connection: Connection) -> Rows:
    c = schema.broker_config.c
    loaded: Rows = {}
    for node, key, value in connection.execute(select(c.node, c.key, c.value).order_by(c.node, c.key)):
        loaded.setdefault(node, {})[key] = value
    return loaded


def _items(rows: Rows) -> set[tuple[int, str, str]]:
    return {(node, key, value) for node, configs in rows.items() for key, value in configs.items()}

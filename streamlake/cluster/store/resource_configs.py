"""Configs of groups and of client metrics subscriptions, by name, whether the group exists or not.

As in Kafka they are checked, kept and shown. They have no effect: groups of the consumer protocol (KIP-848) take what
the server has for all of them, other protocols with configs (KIP-932, KIP-1071) are not there, and clients are not
asked for metrics (KIP-714). No component needs them, so they are not cached: each request reads
them from the metadata store.
"""

import re
from collections.abc import Collection, Mapping

from sqlalchemy import Connection, delete, func, select

from streamlake.cluster.config.definition import (
    ConfigDef,
    ConfigDefs,
    ConfigSource,
    Parser,
    Value,
    comma_list,
    from_fact,
    integer,
)
from streamlake.cluster.config.kafka import BROKER, CLIENT_METRICS, GROUP, Fact
from streamlake.cluster.config.topic import ACCEPTED
from streamlake.cluster.store import schema
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.schema import in_lists, upsert
from streamlake.core.errors import Invalid

ROWS_MAX = 10_000  # of one kind
NAME_BYTES_MAX = 1_024  # an index of PostgreSQL takes no more than 2,704

_BROKER = {fact.name: fact for fact in BROKER}
_OFFSET_RESET = re.compile(r"latest|earliest|by_duration:P(?=\d|T\d)(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?")
_CLIENT = (
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
)


def _offset_reset(value: str) -> Value:
    if not _OFFSET_RESET.fullmatch(value):
        raise ValueError("must be latest, earliest, or by_duration:P1DT2H3M4S")
    return value


def _match(value: str) -> Value:
    items = comma_list(value)
    for item in items:
        client, equals, pattern = item.partition("=")
        if client not in _CLIENT or not equals or not pattern:
            raise ValueError(f"has {item[:100]!r}; each item must be PROPERTY=PATTERN with one of {', '.join(_CLIENT)}")
    return items


def _group(fact: Fact) -> ConfigDef:
    """The broker config of its default, and those of its bounds, have the same name after `group.`."""
    kind, _, rest = fact.name.partition(".")
    all_alike = "all groups of the consumer protocol take what the configuration file has for them."
    doc = ACCEPTED + (all_alike if kind == "consumer" else f"groups of the {kind} protocol are not implemented yet.")
    default = _BROKER.get(f"group.{fact.name}")
    parser: Parser | None = None
    if fact.type == "int":
        rest = rest.removeprefix("num.")
        least, most = _BROKER.get(f"group.{kind}.min.{rest}"), _BROKER.get(f"group.{kind}.max.{rest}")
        low = int(least.default) if least and least.default else int(fact.low or 0)
        parser = integer(low, int(most.default) if most and most.default else 2**31 - 1)
    if fact.name == "share.auto.offset.reset":
        parser = _offset_reset
    return from_fact(fact, doc, parser, default.name if default else fact.name)


_NO_METRICS = ACCEPTED + "clients are not asked for their metrics."
GROUP_CONFIGS = ConfigDefs("group", [_group(fact) for fact in GROUP])
CLIENT_METRICS_CONFIGS = ConfigDefs(
    "client metrics",
    [
        from_fact(fact, _NO_METRICS, {"interval.ms": integer(100, 3_600_000), "match": _match}.get(fact.name))
        for fact in CLIENT_METRICS
    ],
)
DEFINITIONS = {ConfigSource.GROUP: GROUP_CONFIGS, ConfigSource.CLIENT_METRICS: CLIENT_METRICS_CONFIGS}


class ResourceConfigs:
    """The configs of each name. `kind` is GROUP or CLIENT_METRICS."""

    def __init__(self, database: Database, identity: BrokerIdentity) -> None:
        self._database = database
        self._identity = identity

    async def own(self, kind: ConfigSource, name: str) -> dict[str, str]:
        """The configs that are set under this name. Invalid: the name."""
        if not 1 <= len(name.encode()) <= NAME_BYTES_MAX or "\0" in name:
            raise Invalid(f"a name must have 1 to {NAME_BYTES_MAX} bytes of UTF-8, none of them NUL")
        c = schema.resource_config.c
        query = select(c.key, c.value).where((c.kind == kind) & (c.name == name)).order_by(c.key)

        def run(connection: Connection) -> dict[str, str]:
            return {row.key: row.value for row in connection.execute(query)}

        return await self._database.read(run)

    async def names(self, kind: ConfigSource) -> list[str]:
        """The names that have a config."""
        c = schema.resource_config.c
        query = select(c.name).where(c.kind == kind).distinct().order_by(c.name)
        return await self._database.read(lambda connection: list(connection.execute(query).scalars()))

    async def alter(self, kind: ConfigSource, name: str, set_: Mapping[str, str], remove: Collection[str] = ()) -> None:
        """Set and remove configs of a name that `own` accepts; Invalid changes nothing."""
        values = DEFINITIONS[kind].check(set_)
        gone = sorted(key for key in remove if key in DEFINITIONS[kind])
        table = schema.resource_config
        c = table.c

        def run(connection: Connection) -> None:
            for keys in in_lists(gone):
                connection.execute(delete(table).where((c.kind == kind) & (c.name == name) & c.key.in_(keys)))
            upsert(connection, table, [{"kind": kind, "name": name, "key": k, "value": v} for k, v in values.items()])
            if connection.execute(select(func.count()).where(c.kind == kind)).scalar_one() > ROWS_MAX:
                raise Invalid(f"at most {ROWS_MAX} configs of this kind may be set: delete some")

        await self._database.write(run, self._identity)

"""The rows of the schema registry: schemas, versions of subjects, compatibility levels.

The id of a schema is global and never reused, because every message has it; equal schemas share one id. What is equal,
what versions mean and which schema may follow which is the registry's to decide. This file has only the operations that
must be one transaction.
"""

import hashlib
from collections.abc import Collection
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, Select, delete, func, insert, select, update

from streamlake.cluster.store import schema
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.schema import in_lists, take_ids, upsert
from streamlake.core.errors import Conflict, Invalid

GLOBAL = ""  # the subject of the level that applies to all subjects without one
AVRO = "AVRO"


@dataclass(frozen=True, slots=True)
class ReferenceRow:
    """A schema uses this version of a subject under `name`. `schema_id` is the schema of that version."""

    name: str
    subject: str
    version: int
    schema_id: int


@dataclass(frozen=True, slots=True)
class SchemaRow:
    """`identity` is what equal schemas have in common, "" for their text. `compiled` is what the registry made of the
    text so that it need not be parsed again, None if its kind has no such thing."""

    text: str
    kind: str = AVRO
    references: tuple[ReferenceRow, ...] = ()
    compiled: bytes | None = None
    identity: str = ""


@dataclass(frozen=True, slots=True)
class VersionRow:
    subject: str
    version: int  # 1, 2, …
    schema_id: int
    deleted: bool  # soft-deleted: the number remains in use, and readers still find the schema by its id


class SchemaStore:
    """The epoch of this broker fences every write. A write is durable when it returns."""

    def __init__(self, database: Database, identity: BrokerIdentity) -> None:
        self._database = database
        self._identity = identity

    async def schemas(self, schema_ids: Collection[int]) -> dict[int, SchemaRow]:
        """Schemas by id, without `identity`; unknown ids are omitted."""
        s, r = schema.schema.c, schema.schema_reference.c
        lists = list(in_lists(sorted(schema_ids)))
        queries = [select(s.id, s.text, s.kind, s.compiled).where(s.id.in_(some)) for some in lists]
        referring = select(r.schema_id, r.name, r.subject, r.version, r.referenced_id)
        references = [referring.where(r.schema_id.in_(some)).order_by(r.schema_id, r.name) for some in lists]

        def run(connection: Connection) -> dict[int, SchemaRow]:
            refers: dict[int, list[ReferenceRow]] = {}
            for query in references:
                for schema_id, *reference in connection.execute(query):
                    refers.setdefault(schema_id, []).append(ReferenceRow(*reference))
            return {
                schema_id: SchemaRow(text, kind, tuple(refers.get(schema_id, ())), compiled)
                for query in queries
                for schema_id, text, kind, compiled in connection.execute(query)
            }

        return await self._database.read(run)

    async def schema_id(self, row: SchemaRow) -> int | None:
        """The id of the schema that has the same identity."""
        return await self._database.read(lambda connection: _schema_id(connection, row))

    async def referring(self, subject: str, version: int) -> list[int]:
        """The ids of the schemas that refer to a version, in their order."""
        r = schema.schema_reference.c
        query = select(r.schema_id).where((r.subject == subject) & (r.version == version)).order_by(r.schema_id)
        return await self._database.read(lambda connection: list(connection.execute(query.distinct()).scalars()))

    async def versions(self, subject: str) -> list[VersionRow]:
        """All versions of the subject, soft-deleted ones too, by version."""
        v = schema.subject_version.c
        query = select(v.subject, v.version, v.schema_id, v.deleted).where(v.subject == subject).order_by(v.version)
        return await self._database.read(lambda connection: [VersionRow(*row) for row in connection.execute(query)])

    async def subjects(self) -> list[tuple[str, bool]]:
        """All subjects with any version, by name; True if all its versions are soft-deleted."""
        v = schema.subject_version.c
        living = func.count().filter(v.deleted.is_(False))
        query = select(v.subject, living).group_by(v.subject).order_by(v.subject)
        return await self._database.read(
            lambda connection: [(subject, count == 0) for subject, count in connection.execute(query)]
        )

    async def versions_of_schema(self, schema_id: int) -> list[VersionRow]:
        """The versions that use a schema, by subject and version, soft-deleted ones too."""
        v = schema.subject_version.c
        query = select(v.subject, v.version, v.schema_id, v.deleted).where(v.schema_id == schema_id)
        query = query.order_by(v.subject, v.version)
        return await self._database.read(lambda connection: [VersionRow(*row) for row in connection.execute(query)])

    async def register(self, subject: str, row: SchemaRow, latest_version: int) -> VersionRow:
        """Add version `latest_version + 1`. A schema that is known keeps its id; otherwise it gets a new one.

        Conflict if the greatest version, soft-deleted ones included, is not `latest_version` (0: none): the caller has
        not checked compatibility with all versions. Conflict too if a version that the schema refers to is gone.
        """

        def run(connection: Connection) -> VersionRow:
            v = schema.subject_version.c
            greatest = connection.execute(select(func.max(v.version)).where(v.subject == subject)).scalar() or 0
            if greatest != latest_version:
                raise Conflict(f"subject {subject!r} is at version {greatest}, not {latest_version}: check again")
            for reference in row.references:
                _hold_version(connection, reference)
            schema_id = _schema_id(connection, row)
            if schema_id is None:
                schema_id = _insert_schema(connection, row)
            version = VersionRow(subject, latest_version + 1, schema_id, deleted=False)
            connection.execute(insert(schema.subject_version).values(**asdict(version)))
            return version

        # Durable before a producer learns the id: a message whose id no reader can look up would be lost.
        return await self._database.write(run, self._identity)

    async def soft_delete(self, subject: str, versions: Collection[int]) -> None:
        """Hide the versions; unknown ones are ignored. Invalid if a visible version of any subject refers to one."""
        r, v = schema.schema_reference.c, schema.subject_version.c
        visible = select(r.version).join(schema.subject_version, v.schema_id == r.schema_id).where(v.deleted.is_(False))

        def run(connection: Connection) -> None:
            for some in in_lists(sorted(versions)):
                these = (v.subject == subject) & v.version.in_(some)
                connection.execute(update(schema.subject_version).where(these).values(deleted=True))
                _refuse_if_any(connection, visible.where((r.subject == subject) & r.version.in_(some)), subject)

        await self._database.write(run, self._identity)

    async def purge(self, subject: str, versions: Collection[int]) -> None:
        """Drop the versions; unknown ones are ignored. The schemas stay readable by id, and so must what they refer to:
        Invalid if any schema refers to one of the versions."""
        r, v = schema.schema_reference.c, schema.subject_version.c

        def run(connection: Connection) -> None:
            for some in in_lists(sorted(versions)):
                connection.execute(delete(schema.subject_version).where((v.subject == subject) & v.version.in_(some)))
                referred = select(r.version).where((r.subject == subject) & r.version.in_(some))
                _refuse_if_any(connection, referred, subject)

        await self._database.write(run, self._identity)

    async def levels(self, subjects: Collection[str]) -> dict[str, str]:
        """Compatibility levels that are set for these subjects (or GLOBAL)."""
        c = schema.subject_config.c
        queries = [select(c.subject, c.level).where(c.subject.in_(some)) for some in in_lists(sorted(subjects))]

        def run(connection: Connection) -> dict[str, str]:
            return {subject: level for query in queries for subject, level in connection.execute(query)}

        return await self._database.read(run)

    async def set_level(self, subject: str, level: str | None) -> None:
        """Set, or with None remove, the level of a subject (or GLOBAL)."""

        def run(connection: Connection) -> None:
            if level is None:
                connection.execute(delete(schema.subject_config).where(schema.subject_config.c.subject == subject))
            else:
                upsert(connection, schema.subject_config, [{"subject": subject, "level": level}])

        await self._database.write(run, self._identity)


def _hash(row: SchemaRow) -> str:
    """The unique key of a schema: texts are too long for an index."""
    return hashlib.sha256((row.identity or row.text).encode()).hexdigest()


def _schema_id(connection: Connection, row: SchemaRow) -> int | None:
    s = schema.schema.c
    found: int | None = connection.execute(select(s.id).where(s.hash == _hash(row))).scalar()
    return found


def _insert_schema(connection: Connection, row: SchemaRow) -> int:
    schema_id = take_ids(connection, "schema", 1)
    columns = {"id": schema_id, "text": row.text, "hash": _hash(row), "kind": row.kind, "compiled": row.compiled}
    connection.execute(insert(schema.schema).values(**columns))
    for one in row.references:
        refers = {"schema_id": schema_id, "name": one.name, "subject": one.subject, "version": one.version}
        connection.execute(insert(schema.schema_reference).values(**refers, referenced_id=one.schema_id))
    return schema_id


def _hold_version(connection: Connection, reference: ReferenceRow) -> None:
    """Locks the version that is referred to. Who deletes it meanwhile waits, and then sees the reference."""
    v = schema.subject_version.c
    query = select(v.schema_id, v.deleted).where((v.subject == reference.subject) & (v.version == reference.version))
    if connection.execute(query.with_for_update(read=True)).one_or_none() != (reference.schema_id, False):
        raise Conflict(f"version {reference.version} of subject {reference.subject!r} is gone: read it again")


def _refuse_if_any(connection: Connection, references: Select[tuple[int]], subject: str) -> None:
    """Asked after the versions were changed, so that their locks are ours: see _hold_version."""
    version = connection.execute(references.limit(1)).scalar()
    if version is not None:
        raise Invalid(f"one or more references exist to version {version} of subject {subject!r}")

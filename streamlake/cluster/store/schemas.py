"""The rows of the schema registry: schemas, versions of subjects, compatibility levels.

The id of a schema is global and never reused, because every message has it; equal texts share one id. The registry
decides what versions mean and which schema may follow which. This file has only the operations that must be one
transaction.
"""

import hashlib
from collections.abc import Collection
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, delete, func, insert, select, update

from streamlake.cluster.store import schema
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.schema import in_lists, take_ids, upsert
from streamlake.core.errors import Conflict

GLOBAL = ""  # the subject of the level that applies to all subjects without one


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

    async def schemas(self, schema_ids: Collection[int]) -> dict[int, str]:
        """Texts by id; unknown ids are omitted."""
        s = schema.schema.c
        queries = [select(s.id, s.text).where(s.id.in_(some)) for some in in_lists(sorted(schema_ids))]

        def run(connection: Connection) -> dict[int, str]:
            return {schema_id: text for query in queries for schema_id, text in connection.execute(query)}

        return await self._database.read(run)

    async def schema_id(self, text: str) -> int | None:
        """The id of exactly this text."""
        return await self._database.read(lambda connection: _schema_id(connection, text))

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

    async def register(self, subject: str, text: str, latest_version: int) -> VersionRow:
        """Add version `latest_version + 1`. A schema whose text is known keeps its id; otherwise it gets a new one.

        Conflict if the greatest version, soft-deleted ones included, is not `latest_version` (0: none): the caller has
        not checked compatibility with all versions.
        """

        def run(connection: Connection) -> VersionRow:
            v = schema.subject_version.c
            greatest = connection.execute(select(func.max(v.version)).where(v.subject == subject)).scalar() or 0
            if greatest != latest_version:
                raise Conflict(f"subject {subject!r} is at version {greatest}, not {latest_version}: check again")
            schema_id = _schema_id(connection, text)
            if schema_id is None:
                schema_id = take_ids(connection, "schema", 1)
                connection.execute(insert(schema.schema).values(id=schema_id, text=text, hash=_hash(text)))
            row = VersionRow(subject, latest_version + 1, schema_id, deleted=False)
            connection.execute(insert(schema.subject_version).values(**asdict(row)))
            return row

        # Durable before a producer learns the id: a message whose id no reader can look up would be lost.
        return await self._database.write(run, self._identity)

    async def soft_delete(self, subject: str, versions: Collection[int]) -> None:
        """Hide the versions; unknown ones are ignored."""
        v = schema.subject_version.c

        def run(connection: Connection) -> None:
            for some in in_lists(sorted(versions)):
                these = (v.subject == subject) & v.version.in_(some)
                connection.execute(update(schema.subject_version).where(these).values(deleted=True))

        await self._database.write(run, self._identity)

    async def purge(self, subject: str, versions: Collection[int]) -> None:
        """Drop the versions; unknown ones are ignored. The schemas stay readable by id."""
        v = schema.subject_version.c

        def run(connection: Connection) -> None:
            for some in in_lists(sorted(versions)):
                connection.execute(delete(schema.subject_version).where((v.subject == subject) & v.version.in_(some)))

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


def _hash(text: str) -> str:
    """The unique key of a text: texts are too long for an index."""
    return hashlib.sha256(text.encode()).hexdigest()


def _schema_id(connection: Connection, text: str) -> int | None:
    s = schema.schema.c
    found: int | None = connection.execute(select(s.id).where(s.hash == _hash(text))).scalar()
    return found

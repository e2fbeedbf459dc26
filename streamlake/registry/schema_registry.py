"""The registry: rules (subjects, compatibility) over rows (cluster/store/schemas.py), without HTTP.

The metadata store is the only copy of everything, so nothing here can be stale and several brokers may serve the same
registry. Ids are global and for ever: a schema stays readable by its id even after all its versions were deleted for
good, because records and tables may still need it. Parsing and comparing run on an executor, off the loop.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from streamlake.cluster.store.schemas import GLOBAL, SchemaStore, VersionRow
from streamlake.core.errors import Conflict, Invalid
from streamlake.core.tasks import Executor
from streamlake.registry import errors, subjects
from streamlake.registry.avro.compatibility import DEFAULT_LEVEL, Level, incompatibilities
from streamlake.registry.avro.schema import parse_schema
from streamlake.registry.errors import RegistryError

T = TypeVar("T")

AVRO = "AVRO"
BLOCKING_WAITING_MAX = 100  # schemas that wait to be parsed or compared
REGISTER_ATTEMPTS = 10  # only another broker can come in between


@dataclass(frozen=True, slots=True)
class NewSchema:
    """A schema as a client sends it."""

    text: str
    schema_type: str = AVRO
    has_references: bool = False
    normalize: bool = False


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    subject: str
    version: int
    schema_id: int
    text: str


class SchemaRegistry:
    """`executor` may have one thread. Methods raise RegistryError, or an error of the store."""

    def __init__(self, store: SchemaStore, executor: Executor) -> None:
        self._store = store
        self._executor = executor
        self._waiting = 0
        self._registering = asyncio.Lock()

    # --- schemas

    async def register(self, subject: str, schema: NewSchema) -> int:
        """The id. A schema that the subject has already keeps its version; else it must be compatible with what the
        subject has and becomes the next version."""
        subjects.check_subject(subject)
        text = await self._parse(schema)
        async with self._registering:  # spares those who register at once a round of Conflict
            for _ in range(REGISTER_ATTEMPTS):
                rows = await self._store.versions(subject)
                known = subjects.version_of(rows, await self._store.schema_id(text))
                if known is not None:
                    return known.schema_id
                greatest = subjects.greatest_version(subject, rows)
                why = await self._incompatibilities(subject, text, subjects.visible(rows))
                if why:
                    raise RegistryError(errors.INCOMPATIBLE, _incompatible_text(subject, why))
                try:
                    # Durable when it returns: a producer that hears of the id may write it into records at once.
                    row = await self._store.register(subject, text, greatest)
                except Conflict:
                    continue
                return row.schema_id
        raise RegistryError(errors.STORE_FAILED, f"subject '{subject}' changes all the time: try again")

    async def schema(self, schema_id: int) -> str:
        """The canonical text."""
        found = await self._store.schemas([schema_id])
        if schema_id not in found:
            raise RegistryError(errors.SCHEMA_NOT_FOUND, f"Schema {schema_id} not found")
        return found[schema_id]

    async def versions_of_schema(self, schema_id: int, deleted: bool) -> list[VersionRow]:
        """By subject and version."""
        await self.schema(schema_id)
        return subjects.visible(await self._store.versions_of_schema(schema_id), deleted)

    # --- subjects

    async def subjects(self, prefix: str, deleted: bool, deleted_only: bool) -> list[str]:
        found = await self._store.subjects()
        return [
            subject
            for subject, is_deleted in found
            if subject.startswith(prefix) and (is_deleted if deleted_only else deleted or not is_deleted)
        ]

    async def versions(self, subject: str, deleted: bool, deleted_only: bool) -> list[int]:
        rows = await self._store.versions(subject)
        found = subjects.require_subject(subject, rows, deleted or deleted_only)
        return [row.version for row in found if row.deleted or not deleted_only]

    async def version(self, subject: str, version: str, deleted: bool) -> RegisteredSchema:
        number = subjects.parse_version(version)
        return await self._registered(
            subjects.find_version(subject, await self._store.versions(subject), number, deleted)
        )

    async def lookup(self, subject: str, schema: NewSchema, deleted: bool) -> RegisteredSchema:
        """Under which version the subject has this schema."""
        rows = await self._store.versions(subject)
        subjects.require_subject(subject, rows, deleted)
        text = await self._parse(schema)
        row = subjects.version_of(rows, await self._store.schema_id(text), deleted)
        if row is None:
            raise RegistryError(errors.SCHEMA_NOT_FOUND, f"Schema not found under subject '{subject}'")
        return await self._registered(row)

    async def delete_subject(self, subject: str, permanent: bool) -> list[int]:
        """The versions that were deleted. The subject's own level goes too."""
        versions = subjects.deletable_subject(subject, await self._store.versions(subject), permanent)
        await (self._store.purge if permanent else self._store.soft_delete)(subject, versions)
        await self._store.set_level(subject, None)
        return versions

    async def delete_version(self, subject: str, version: str, permanent: bool) -> int:
        number = subjects.parse_version(version)
        doomed = subjects.deletable_version(subject, await self._store.versions(subject), number, permanent)
        await (self._store.purge if permanent else self._store.soft_delete)(subject, [doomed])
        return doomed

    # --- compatibility

    async def level(self, subject: str, default_to_global: bool = True) -> Level:
        """`subject` may be GLOBAL."""
        levels = await self._store.levels([subject, GLOBAL])
        if subject not in levels and subject != GLOBAL and not default_to_global:
            text = f"Subject '{subject}' does not have subject-level compatibility configured"
            raise RegistryError(errors.NO_SUBJECT_LEVEL, text)
        found = levels.get(subject) or levels.get(GLOBAL)
        return Level(found) if found else DEFAULT_LEVEL

    async def set_level(self, subject: str, level: str) -> Level:
        if subject != GLOBAL:
            subjects.check_subject(subject)
        try:
            chosen = Level(level.upper())
        except ValueError:
            known = ", ".join(known.value for known in Level)
            raise RegistryError(
                errors.INVALID_LEVEL, f"'{level[:50]}' is no compatibility level; levels are {known}"
            ) from None
        await self._store.set_level(subject, chosen.value)
        return chosen

    async def delete_level(self, subject: str) -> Level:
        """Back to the default; the level that was."""
        before = await self.level(subject, default_to_global=False)
        await self._store.set_level(subject, None)
        return before

    async def check(self, subject: str, schema: NewSchema, version: str | None) -> list[str]:
        """What speaks against registering the schema; compared with one version, or as the level says (None)."""
        text = await self._parse(schema)
        rows = subjects.visible(await self._store.versions(subject))
        number = None if version is None else subjects.parse_version(version)
        if number is not None:
            rows = [subjects.find_version(subject, rows, number)]
        elif version is not None:
            rows = rows[-1:]
        return await self._incompatibilities(subject, text, rows)

    async def _incompatibilities(self, subject: str, text: str, rows: list[VersionRow]) -> list[str]:
        level = await self.level(subject)
        compared = rows if level.transitive else rows[-1:]
        texts = await self._store.schemas({row.schema_id for row in compared})
        earlier = [(row.version, texts[row.schema_id]) for row in compared]
        return await self._blocking(lambda: incompatibilities(level, text, earlier))

    async def _registered(self, row: VersionRow) -> RegisteredSchema:
        return RegisteredSchema(row.subject, row.version, row.schema_id, await self.schema(row.schema_id))

    async def _parse(self, schema: NewSchema) -> str:
        if schema.schema_type.upper() != AVRO:
            text = f"Schema type '{schema.schema_type[:50]}' is not supported yet: only {AVRO} is"
            raise RegistryError(errors.INVALID_SCHEMA, text)
        if schema.has_references:
            text = "Schema references are not supported yet: put the types that are referred to into the schema itself"
            raise RegistryError(errors.INVALID_SCHEMA, text)
        return await self._blocking(lambda: parse_schema(schema.text, schema.normalize))

    async def _blocking(self, work: Callable[[], T]) -> T:
        if self._waiting >= BLOCKING_WAITING_MAX:
            raise RegistryError(errors.TOO_MANY_REQUESTS, "too many schemas are being checked: try again later")
        self._waiting += 1
        try:
            return await self._executor.run(work)
        except Invalid as error:
            raise RegistryError(errors.INVALID_SCHEMA, f"Invalid schema: {error}") from None
        finally:
            self._waiting -= 1


def _incompatible_text(subject: str, why: list[str]) -> str:
    return f"Schema being registered is incompatible with an earlier schema for subject '{subject}': {'; '.join(why)}"

"""The registry: rules (subjects, compatibility) over rows (cluster/store/schemas.py), without HTTP.

The metadata store is the only copy of everything, so nothing here can be stale and several brokers may serve the same
registry. Ids are global and for ever: a schema stays readable by its id even after all its versions were deleted for
good, because records and tables may still need it. Parsing and comparing run on an executor, off the loop.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import msgspec

from streamlake.cluster.store.schemas import AVRO, GLOBAL, ReferenceRow, SchemaRow, SchemaStore, VersionRow
from streamlake.core.errors import Conflict, Invalid
from streamlake.core.tasks import Executor
from streamlake.registry import errors, subjects
from streamlake.registry.errors import RegistryError
from streamlake.registry.kinds import KINDS
from streamlake.registry.levels import DEFAULT_LEVEL, Level
from streamlake.registry.parsed import ParsedSchemas
from streamlake.registry.port import Document, File, Parsed

T = TypeVar("T")

BLOCKING_WAITING_MAX = 100  # schemas that wait to be parsed or compared
REGISTER_ATTEMPTS = 10  # only another broker can come in between
FILES_MAX = 200  # that a schema refers to, directly or not
FILES_CHARS_MAX = 4 * 1024 * 1024


class Reference(NamedTuple):
    """A schema uses a version of a subject under `name`. Version -1: the latest."""

    name: str
    subject: str
    version: int


@dataclass(frozen=True, slots=True)
class NewSchema:
    """A schema as a client sends it."""

    text: str
    schema_type: str = AVRO
    references: tuple[Reference, ...] = ()
    normalize: bool = False


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    subject: str
    version: int
    schema_id: int
    schema: SchemaRow


class _Candidate(NamedTuple):
    """A schema that was parsed: as it would be stored, and to be compared."""

    row: SchemaRow
    document: Document


class SchemaRegistry:
    """`executor` may have one thread. Methods raise RegistryError, or an error of the store."""

    def __init__(self, store: SchemaStore, executor: Executor) -> None:
        self._store = store
        self._executor = executor
        self._waiting = 0
        self._registering = asyncio.Lock()
        self._parsed = ParsedSchemas()

    # --- schemas

    async def register(self, subject: str, schema: NewSchema) -> int:
        """The id. A schema that the subject has already keeps its version; else it must be compatible with what the
        subject has and becomes the next version."""
        subjects.check_subject(subject)
        candidate = await self._parse(schema)
        async with self._registering:  # spares those who register at once a round of Conflict
            for _ in range(REGISTER_ATTEMPTS):
                rows = await self._store.versions(subject)
                known = subjects.version_of(rows, await self._store.schema_id(candidate.row))
                if known is not None:
                    return known.schema_id
                greatest = subjects.greatest_version(subject, rows)
                why = await self._incompatibilities(subject, candidate, subjects.visible(rows))
                if why:
                    raise RegistryError(errors.INCOMPATIBLE, _incompatible_text(subject, why))
                try:
                    # Durable when it returns: a producer that hears of the id may write it into records at once.
                    version = await self._store.register(subject, candidate.row, greatest)
                except Conflict:
                    if schema.references:  # a version that it refers to may be gone
                        candidate = await self._parse(schema)
                    continue
                return version.schema_id
        raise RegistryError(errors.STORE_FAILED, f"subject '{subject}' changes all the time: try again")

    async def schema(self, schema_id: int) -> SchemaRow:
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
        candidate = await self._parse(schema)
        row = subjects.version_of(rows, await self._store.schema_id(candidate.row), deleted)
        if row is None:
            raise RegistryError(errors.SCHEMA_NOT_FOUND, f"Schema not found under subject '{subject}'")
        return await self._registered(row)

    async def delete_subject(self, subject: str, permanent: bool) -> list[int]:
        """The versions that were deleted. The subject's own level goes too."""
        versions = subjects.deletable_subject(subject, await self._store.versions(subject), permanent)
        await self._delete(subject, versions, permanent)
        await self._store.set_level(subject, None)
        return versions

    async def delete_version(self, subject: str, version: str, permanent: bool) -> int:
        number = subjects.parse_version(version)
        doomed = subjects.deletable_version(subject, await self._store.versions(subject), number, permanent)
        await self._delete(subject, [doomed], permanent)
        return doomed

    async def referring(self, subject: str, version: str) -> list[int]:
        """The ids of the schemas that refer to a version."""
        found = await self.version(subject, version, deleted=False)
        return await self._store.referring(subject, found.version)

    async def _delete(self, subject: str, versions: list[int], permanent: bool) -> None:
        try:
            await (self._store.purge if permanent else self._store.soft_delete)(subject, versions)
        except Invalid as error:
            raise RegistryError(errors.REFERENCE_EXISTS, f"{error}: delete what refers to it first") from None

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
        candidate = await self._parse(schema)
        rows = subjects.visible(await self._store.versions(subject))
        number = None if version is None else subjects.parse_version(version)
        if number is not None:
            rows = [subjects.find_version(subject, rows, number)]
        elif version is not None:
            rows = rows[-1:]
        return await self._incompatibilities(subject, candidate, rows)

    async def _incompatibilities(self, subject: str, new: _Candidate, rows: list[VersionRow]) -> list[str]:
        level = await self.level(subject)
        compared = rows if level.transitive else rows[-1:]
        if level is Level.NONE or not compared:
            return []
        stored = await self._store.schemas({row.schema_id for row in compared})
        kind = new.row.kind
        others = [(row.version, stored[row.schema_id].kind) for row in compared if stored[row.schema_id].kind != kind]
        if others:
            return [f"the new schema is {kind}, and version {version} is {other}" for version, other in others]
        earlier = [(row.version, await self._document(stored[row.schema_id])) for row in compared]
        return await self._blocking(lambda: KINDS[kind].incompatibilities(level, new.document, earlier))

    async def _registered(self, row: VersionRow) -> RegisteredSchema:
        return RegisteredSchema(row.subject, row.version, row.schema_id, await self.schema(row.schema_id))

    # --- parsing

    async def _parse(self, schema: NewSchema) -> _Candidate:
        name = schema.schema_type.upper()
        if name not in KINDS:
            text = f"Schema type '{schema.schema_type[:50]}' is not supported yet: only {', '.join(KINDS)} are"
            raise RegistryError(errors.INVALID_SCHEMA, text)
        references = await self._references(schema.references)
        files = await self._files(name, references)
        parsed = await self._blocking(lambda: self._parsed_once(name, schema, files))
        refers = [[one.name, one.subject, one.version] for one in references]
        identity = f"{name}\n{msgspec.json.encode(refers).decode()}\n{parsed.canonical}" if name != AVRO else ""
        row = SchemaRow(parsed.text, name, references, parsed.compiled, identity)
        return _Candidate(row, Document(parsed.text, parsed.compiled, files))

    def _parsed_once(self, kind: str, schema: NewSchema, files: dict[str, File]) -> Parsed:
        """On the executor, so that of those who wait for the same schema only the first has it parsed."""
        text, normalize = schema.text, schema.normalize
        return self._parsed.get(kind, text, files, normalize, lambda: KINDS[kind].parse(text, files, normalize))

    async def _references(self, references: Sequence[Reference]) -> tuple[ReferenceRow, ...]:
        """By name. What they refer to must be there and visible."""
        if len(references) > FILES_MAX or len({one.name for one in references}) < len(references):
            text = f"Invalid schema: references must have names of their own, and be at most {FILES_MAX}"
            raise RegistryError(errors.INVALID_SCHEMA, text)
        found = []
        for one in sorted(references):
            try:
                rows = await self._store.versions(one.subject)
                row = subjects.find_version(one.subject, rows, None if one.version == -1 else one.version)
            except RegistryError as error:
                text = f"Invalid schema: its reference '{one.name[:100]}' cannot be found: {error}"
                raise RegistryError(errors.INVALID_SCHEMA, text) from None
            found.append(ReferenceRow(one.name, one.subject, row.version, row.schema_id))
        return tuple(found)

    async def _files(self, kind: str, references: Sequence[ReferenceRow]) -> dict[str, File]:
        """What a schema of this kind refers to, directly or not, by name."""
        ids: dict[str, int] = {}
        files: dict[str, File] = {}
        waiting = list(references)
        while waiting:
            stored = await self._store.schemas({one.schema_id for one in waiting})
            level, waiting = waiting, []
            for one in level:
                if ids.setdefault(one.name, one.schema_id) != one.schema_id:
                    text = f"Invalid schema: '{one.name}' is the name of two different schemas that it refers to"
                    raise RegistryError(errors.INVALID_SCHEMA, text)
                if one.name not in files:
                    row = stored[one.schema_id]
                    _check_reference(kind, one, row)
                    files[one.name] = File(row.text, row.compiled)
                    waiting += row.references
            if len(files) > FILES_MAX or sum(len(file.text) for file in files.values()) > FILES_CHARS_MAX:
                text = f"it refers to more than {FILES_MAX} schemas, or to {FILES_CHARS_MAX:,} characters of them"
                raise RegistryError(errors.INVALID_SCHEMA, f"Invalid schema: {text}")
        return files

    async def _document(self, row: SchemaRow) -> Document:
        return Document(row.text, row.compiled, await self._files(row.kind, row.references))

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


def _check_reference(kind: str, reference: ReferenceRow, row: SchemaRow) -> None:
    if row.kind != kind:
        text = f"Invalid schema: it is {kind}, and its reference '{reference.name}' is {row.kind}"
        raise RegistryError(errors.INVALID_SCHEMA, text)


def shown_text(row: SchemaRow, format: str) -> str:
    """The text of a schema, or with format "serialized" what its kind has for that."""
    return KINDS[row.kind].serialized(Document(row.text, row.compiled)) if format == "serialized" else row.text


def _incompatible_text(subject: str, why: list[str]) -> str:
    return f"Schema being registered is incompatible with an earlier schema for subject '{subject}': {'; '.join(why)}"

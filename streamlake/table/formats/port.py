"""The ports of record formats: what kinds.py lists, and what stands behind them.

A *convert type* reads a whole column of keys or values (`Convert`). One of them, by_schema_id, reads each value with
the schema whose id it begins with: a *schema kind* (`Compile`) makes a reader of such a schema.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from streamlake.table.formats.converted import Converted, Group, Reason


class Reference(NamedTuple):
    """A schema that another one uses under `name`. `schema` is None if its kind has no use for it here."""

    name: str
    subject: str
    version: int
    schema: "WriterSchema | None" = None


@dataclass(frozen=True, slots=True)
class WriterSchema:
    """A schema that values were written with, as the registry has it. `kind` is the registry's `schemaType`; the text
    may be what the registry shows as `format=serialized`."""

    kind: str
    text: str
    references: tuple[Reference, ...] = ()


class LatestSchema(NamedTuple):
    id: int
    schema: WriterSchema


class SchemaSource(Protocol):
    """A schema registry, seen from a worker thread: it may block."""

    def get(self, schema_id: int) -> WriterSchema:
        """Raises NotFound (no such id), Invalid (no table can hold it), Unavailable."""
        ...

    def latest(self, subject: str) -> LatestSchema:
        """The newest version of a subject. Raises NotFound (there is none), Invalid (no table can hold it),
        Unavailable."""
        ...


class ReadValues(NamedTuple):
    """The good rows, a group for each type that the schema has; and (row, what is wrong) of each other one: with its
    bytes, or with the type that they are of, which no table can hold."""

    groups: Sequence[Group]
    errors: Sequence[tuple[int, str]] = ()
    unsupported: Sequence[tuple[int, str]] = ()


class ValueReader(Protocol):
    """Decodes values of one schema."""

    def read(self, column: Any, rows: Any, skip_bytes: int) -> ReadValues:
        """Decode the values of a binary array that `rows` (int64 array, no nulls) number, each from its byte
        `skip_bytes`."""
        ...


class SchemaReader(ValueReader, Protocol):
    """A compiled schema, for values in the wire format."""

    def of_message(self, name: str) -> ValueReader:
        """For values that are nothing but a value of the schema. `name` chooses one of a schema's messages, "" the
        first; schemas with one type need no name. Raises NotFound, and Invalid: no table can hold it."""
        ...

    def losses(self) -> Sequence[str]:
        """What a column does not keep of a value that goes into it, each in words, with the field."""
        ...


class Compile(Protocol):
    """A schema kind."""

    def __call__(self, schema: WriterSchema) -> SchemaReader:
        """Raises Invalid, saying why values of this schema cannot go to a table."""
        ...


class Schemas(Protocol):
    """Compiled schemas by id, and the newest of a subject."""

    def get(self, schema_id: int) -> SchemaReader:
        """Raises NotFound, Unavailable, and Invalid for a schema that no table can hold."""
        ...

    def latest(self, subject: str) -> tuple[int, SchemaReader]:
        """With its id. Raises what `get` does; NotFound if the subject has no schema."""
        ...


class Convert(Protocol):
    """A convert type."""

    def __call__(self, column: Any, reason: Reason, schemas: Schemas) -> Converted:
        """Read a binary array, in which a keyless record or a tombstone is null. Bad values carry `reason`. Raises
        Unavailable."""
        ...

"""Schema id → compiled schema, and the registry behind it.

Schemas never change, so compiled ones are kept, the most recently used first. A registry that is down is not a property
of the record: its Unavailable passes through, the round waits, and no record is judged.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable

from streamlake.core.errors import Invalid, NotFound
from streamlake.table.formats.kinds import compile_reader
from streamlake.table.formats.port import SchemaReader, Schemas, SchemaSource, WriterSchema

SCHEMAS_MAX = 1_000


class SchemaCache:
    """Implements Schemas: compiled ones by id, shared by all tables of one registry and by their threads."""

    def __init__(self, source: SchemaSource, schemas_max: int = SCHEMAS_MAX) -> None:
        self._source = source
        self._schemas_max = schemas_max
        self._known: OrderedDict[int, SchemaReader | Invalid] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, schema_id: int) -> SchemaReader:
        return self._compiled(schema_id, lambda: self._source.get(schema_id))

    def latest(self, subject: str) -> tuple[int, SchemaReader]:
        """Asks the registry each time."""
        found = self._source.latest(subject)
        return found.id, self._compiled(found.id, lambda: found.schema)

    def _compiled(self, schema_id: int, fetch: Callable[[], WriterSchema]) -> SchemaReader:
        with self._lock:
            found = self._known.get(schema_id)
            if found is not None:
                self._known.move_to_end(schema_id)
        if found is None:
            found = self._compile(schema_id, fetch)
        if isinstance(found, Invalid):
            raise Invalid(*found.args)
        return found

    def _compile(self, schema_id: int, fetch: Callable[[], WriterSchema]) -> SchemaReader | Invalid:
        try:
            compiled: SchemaReader | Invalid = compile_reader(fetch())
        except Invalid as error:
            compiled = error
        with self._lock:
            self._known[schema_id] = compiled
            if len(self._known) > self._schemas_max:
                self._known.popitem(last=False)
        return compiled


class RoundSchemas:
    """Implements Schemas: a cache as one round sees it. An id that the registry does not know, and what is newest, is
    asked for once.

    No longer than a round: all its records were in the log before the first of them is looked at, so a schema that is
    unknown now was unknown when they were written. A record of the next round may come after the schema."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._unknown: dict[int, str] = {}
        self._latest: dict[str, tuple[int, SchemaReader]] = {}

    def get(self, schema_id: int) -> SchemaReader:
        if schema_id in self._unknown:
            raise NotFound(self._unknown[schema_id])
        try:
            return self._schemas.get(schema_id)
        except NotFound as error:
            self._unknown[schema_id] = str(error)
            raise

    def latest(self, subject: str) -> tuple[int, SchemaReader]:
        if subject not in self._latest:
            self._latest[subject] = self._schemas.latest(subject)
        return self._latest[subject]

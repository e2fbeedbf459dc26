"""A Confluent-compatible schema registry over HTTP, as the table worker asks it: for one schema, by its id or as
the newest of a subject.

Called from the worker's threads, where blocking is fine. A registry that has a serialized form of a schema is asked for
that, because it need not be parsed; others send its text. Of Protobuf and JSON Schema, also what they refer to.
"""

import http.client
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

from streamlake.core.errors import Invalid, NotFound, Unavailable
from streamlake.table.formats.port import LatestSchema, Reference, WriterSchema

AVRO = "AVRO"  # what a registry means that names no type
WITH_REFERENCES = frozenset({"JSON", "PROTOBUF"})
TIMEOUT_S = 10.0
SCHEMA_BYTES_MAX = 4 * 1024 * 1024
REFERENCES_MAX = 200  # of one schema, directly or not
REFERENCES_BYTES_MAX = 16 * 1024 * 1024


class HttpSchemaSource:
    """Implements SchemaSource."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        # The registry is the server that started us: a proxy from the environment would only be in the way.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, schema_id: int) -> WriterSchema:
        schema = self._read(f"/schemas/ids/{schema_id}?format=serialized", f"schema with id {schema_id}")
        return self._with_references(schema, schema_id)

    def _with_references(self, schema: WriterSchema, schema_id: int) -> WriterSchema:
        return _Resolution(self, schema_id).resolved(schema) if schema.kind in WITH_REFERENCES else schema

    def latest(self, subject: str) -> LatestSchema:
        path = f"/subjects/{quote(subject, safe='')}/versions/latest"
        body, where = self._ask(f"{path}?format=serialized", f"subject {subject[:100]!r}")
        schema = _decoded(body, where, f"the latest version of subject {subject[:100]!r}")
        id = json.loads(body).get("id")
        if type(id) is not int:
            raise Unavailable(f"{where} is not the answer of a schema registry: the version has no id")
        return LatestSchema(id, self._with_references(schema, id))

    def version(self, reference: Reference, schema_id: int) -> WriterSchema:
        """What a schema refers to. A registry keeps it as long as somebody refers to it, deleted or not."""
        path = f"/subjects/{quote(reference.subject, safe='')}/versions/{reference.version}"
        what = f"version {reference.version} of subject {reference.subject[:100]!r}"
        try:
            return self._read(f"{path}?deleted=true&format=serialized", what)
        except NotFound as error:
            raise Invalid(f"schema {schema_id} refers to {what}, and {error}") from None

    def _read(self, path: str, what: str) -> WriterSchema:
        body, where = self._ask(path, what)
        return _decoded(body, where, what)

    def _ask(self, path: str, what: str) -> tuple[bytes, str]:
        """The answer, and where it came from."""
        where = f"{self._url}{path}"
        try:
            with self._opener.open(where, timeout=TIMEOUT_S) as response:
                body = response.read(SCHEMA_BYTES_MAX + 1)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise NotFound(f"the schema registry has no {what}") from None
            raise Unavailable(f"the schema registry answered {error.code} for {what}") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the schema registry at {self._url} cannot be reached: {error!r}") from None
        if len(body) > SCHEMA_BYTES_MAX:
            raise Invalid(f"{what} is larger than {SCHEMA_BYTES_MAX} bytes")
        return body, where


def _decoded(body: bytes, where: str, what: str) -> WriterSchema:
    try:
        answer: Any = json.loads(body)
        kind, text = answer.get("schemaType", AVRO), answer["schema"]
        references = tuple(Reference(r["name"], r["subject"], r["version"]) for r in answer.get("references") or ())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Unavailable(f"{where} is not the answer of a schema registry") from None
    if not isinstance(kind, str) or not isinstance(text, str):
        raise Invalid(f"{what} has type {kind!r} and a text of type {type(text).__name__}: both must be strings")
    if not all(isinstance(r.name, str) and isinstance(r.subject, str) and type(r.version) is int for r in references):
        raise Invalid(f"{what} has references that are none: name and subject are text, version is a number")
    return WriterSchema(kind, text, references)


class _Resolution:
    """Fetches all that one schema refers to, each name once."""

    def __init__(self, source: HttpSchemaSource, schema_id: int) -> None:
        self._source = source
        self._schema_id = schema_id
        self._found: dict[str, WriterSchema] = {}
        self._open: list[str] = []
        self._chars = 0

    def resolved(self, schema: WriterSchema) -> WriterSchema:
        """The schema with its references' schemas."""
        references = tuple(reference._replace(schema=self._reference(reference)) for reference in schema.references)
        return WriterSchema(schema.kind, schema.text, references)

    def _reference(self, reference: Reference) -> WriterSchema:
        name = reference.name
        if name in self._open:
            raise Invalid(f"schema {self._schema_id} refers to itself by way of {name[:100]!r}")
        if name not in self._found:
            found = self._source.version(reference, self._schema_id)
            self._chars += len(found.text)
            if len(self._found) + len(self._open) >= REFERENCES_MAX or self._chars > REFERENCES_BYTES_MAX:
                raise Invalid(f"schema {self._schema_id} refers to more than {REFERENCES_MAX} schemas, or large ones")
            self._open.append(name)
            self._found[name] = self.resolved(found)
            self._open.pop()
        return self._found[name]

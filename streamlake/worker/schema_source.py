"""A Confluent-compatible schema registry over HTTP, as the table worker asks it: for one schema, by its id or as
the newest of a subject.

Called from the worker's threads, where blocking is fine. A registry that has a serialized form of a schema is asked for
that, because it need not be parsed; others send its text. Of Protobuf and JSON Schema, also what they refer to.
"""

import http.client
import json
import urllib.error
from typing import Any
from urllib.parse import quote

from streamlake.core.clock import Clock
from streamlake.core.errors import SHOWN_CHARS_MAX, Invalid, NotFound, StreamLakeError, Unavailable
from streamlake.table.formats.port import LatestSchema, Reference, WriterSchema
from streamlake.table.task.control import RegistryAccess
from streamlake.worker.registry_access import opener_of

AVRO = "AVRO"  # what a registry means that names no type
WITH_REFERENCES = frozenset({"JSON", "PROTOBUF"})
TIMEOUT_S = 10.0  # for a connection, and for each part of an answer
ANSWER_TIMEOUT_S = 60.0  # for all of it
ERROR_BYTES_MAX = 64 * 1024
NOT_FOUND_CODES = frozenset({40401, 40402, 40403})  # of a subject, a version, a schema
SCHEMA_BYTES_MAX = 4 * 1024 * 1024
REFERENCES_MAX = 200  # of one schema, directly or not
REFERENCES_BYTES_MAX = 16 * 1024 * 1024


class HttpSchemaSource:
    """Implements SchemaSource."""

    def __init__(self, url: str, clock: Clock, access: RegistryAccess | None = None) -> None:
        """`access`: None for the server's own registry. Raises Invalid: see opener_of."""
        self._url = url.rstrip("/")
        self._clock = clock
        self._opener = opener_of(access)

    def get(self, schema_id: int) -> WriterSchema:
        schema = self._read(f"/schemas/ids/{schema_id}?format=serialized", f"schema with id {schema_id}")
        return self._with_references(schema, schema_id)

    def _with_references(self, schema: WriterSchema, schema_id: int) -> WriterSchema:
        return _Resolution(self, schema_id).resolved(schema) if schema.kind in WITH_REFERENCES else schema

    def latest(self, subject: str) -> LatestSchema:
        path = f"/subjects/{quote(subject, safe='')}/versions/latest"
        body, where = self._ask(f"{path}?format=serialized", f"subject {subject[:100]!r}")
        answer = _object(body, where)
        schema = _decoded(answer, where, f"the latest version of subject {subject[:100]!r}")
        id = answer.get("id")
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
        return _decoded(_object(body, where), where, what)

    def _ask(self, path: str, what: str) -> tuple[bytes, str]:
        """The answer, and where it came from."""
        where = f"{self._url}{path}"
        try:
            with self._opener.open(where, timeout=TIMEOUT_S) as response:
                body = self._body(response)
        except urllib.error.HTTPError as error:
            raise self._refusal(error, what) from None
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the schema registry at {self._url} cannot be reached: {error!r}") from None
        if len(body) > SCHEMA_BYTES_MAX:
            raise Invalid(f"{what} is larger than {SCHEMA_BYTES_MAX} bytes")
        return body, where

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        """At most a byte more than a schema may have. Unavailable if it comes too slowly: a thread waits for it."""
        until = self._clock.boottime() + ANSWER_TIMEOUT_S
        parts: list[bytes] = []
        size = 0
        while size <= SCHEMA_BYTES_MAX and (part := response.read1(SCHEMA_BYTES_MAX + 1 - size)):
            parts.append(part)
            size += len(part)
            if self._clock.boottime() > until:
                raise Unavailable(f"the answer of the schema registry at {self._url} took over {ANSWER_TIMEOUT_S:g} s")
        if size <= SCHEMA_BYTES_MAX and response.length:  # of what was announced
            raise Unavailable(f"the answer of the schema registry at {self._url} was cut off")
        return b"".join(parts)

    def _refusal(self, error: urllib.error.HTTPError, what: str) -> StreamLakeError:
        """NotFound only if the registry itself says so: a proxy's 404 must not make dead letters."""
        if error.code == 404 and _error_code(error) in NOT_FOUND_CODES:
            return NotFound(f"the schema registry has no {what}")
        if error.code in (401, 403):
            return Unavailable(
                f"the schema registry at {self._url} refuses us ({error.code}): set registry.username and "
                "registry.password, or registry.token, to what it accepts"
            )
        if 300 <= error.code < 400:
            where = error.headers.get("Location", "another address")[:SHOWN_CHARS_MAX]
            return Unavailable(f"the schema registry at {self._url} sends us to {where}: set registry.url to that")
        answered = f"the schema registry at {self._url} answered {error.code} for {what}"
        asked_for = error.headers.get("Retry-After", "")
        if error.code in (429, 503) and asked_for.isascii() and asked_for.isdigit() and len(asked_for) < 7:
            return Busy(answered, float(asked_for))
        return Unavailable(answered)


class Busy(Unavailable):
    """The registry asks for a pause."""

    def __init__(self, message: str, pause_s: float) -> None:
        super().__init__(message)
        self.pause_s = pause_s


def _error_code(error: urllib.error.HTTPError) -> object:
    try:
        return json.loads(error.read(ERROR_BYTES_MAX)).get("error_code")
    except (OSError, http.client.HTTPException, ValueError, AttributeError, RecursionError):
        return None


def _object(body: bytes, where: str) -> dict[str, Any]:
    """The answer `body`, which came from `where`."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise Unavailable(f"{where} is not the answer of a schema registry")
    return answer


def _decoded(answer: dict[str, Any], where: str, what: str) -> WriterSchema:
    try:
        kind, text = answer.get("schemaType", AVRO), answer["schema"]
        references = tuple(Reference(r["name"], r["subject"], r["version"]) for r in answer.get("references") or ())
    except (KeyError, TypeError, AttributeError):
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

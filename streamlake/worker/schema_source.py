"""A Confluent-compatible schema registry over HTTP, as the table worker asks it: one schema by its id.

Called from the worker's threads, where blocking is fine.
"""

import http.client
import json
import urllib.error
import urllib.request

from streamlake.core.errors import Invalid, NotFound, Unavailable
from streamlake.table.formats.port import Reference, WriterSchema

AVRO = "AVRO"  # what a registry means that names no type
TIMEOUT_S = 10.0
SCHEMA_BYTES_MAX = 4 * 1024 * 1024


class HttpSchemaSource:
    """Implements SchemaSource."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        # The registry is the server that started us: a proxy from the environment would only be in the way.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, schema_id: int) -> WriterSchema:
        where = f"{self._url}/schemas/ids/{schema_id}"
        try:
            with self._opener.open(where, timeout=TIMEOUT_S) as response:
                body = response.read(SCHEMA_BYTES_MAX + 1)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise NotFound(f"the schema registry has no schema with id {schema_id}") from None
            raise Unavailable(f"the schema registry answered {error.code} for schema {schema_id}") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the schema registry at {self._url} cannot be reached: {error!r}") from None
        if len(body) > SCHEMA_BYTES_MAX:
            raise Invalid(f"schema {schema_id} is larger than {SCHEMA_BYTES_MAX} bytes")
        try:
            answer = json.loads(body)
            kind, text = answer.get("schemaType", AVRO), answer["schema"]
            references = tuple(Reference(r["name"], r["subject"], r["version"]) for r in answer.get("references") or ())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Unavailable(f"{where} is not the answer of a schema registry") from None
        if not isinstance(kind, str) or not isinstance(text, str):
            raise Invalid(
                f"schema {schema_id} has type {kind!r} and a text of type {type(text).__name__}: both must be strings"
            )
        return WriterSchema(kind, text, references)

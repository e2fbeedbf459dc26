"""Confluent's Schema Registry REST API: routes for Starlette, nothing but translation.

Subjects may hold any character, slashes too: routes match the path as it was sent, still percent-encoded. Bodies and
answers are JSON (application/vnd.schemaregistry.v1+json); errors carry Confluent's codes. Every list takes `offset`
and `limit`. The mode is always READWRITE; contexts, guids, metadata and rules of schemas are not there.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote

import msgspec
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from streamlake.cluster.store.schemas import AVRO, GLOBAL, SchemaRow
from streamlake.core.errors import StreamLakeError
from streamlake.registry import errors
from streamlake.registry.errors import RegistryError
from streamlake.registry.kinds import KINDS
from streamlake.registry.schema_registry import NewSchema, Reference, RegisteredSchema, SchemaRegistry, shown_text
from streamlake.registry.subjects import VERSION_NUMBER_MAX

BODY_BYTES_MAX = 1024 * 1024
MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
READWRITE = "READWRITE"
MODES = frozenset({READWRITE, "READONLY", "READONLY_OVERRIDE", "IMPORT", "FORWARD"})
SCHEMA_ID_MAX = 2**31 - 1

T = TypeVar("T")
Handler = Callable[[SchemaRegistry, Request], Awaitable[Any]]
log = structlog.get_logger(__name__)


class ReferenceBody(msgspec.Struct):
    name: str
    subject: str
    version: Annotated[int, msgspec.Meta(ge=-1, le=VERSION_NUMBER_MAX)]


class SchemaBody(msgspec.Struct, rename="camel"):
    schema: str
    schema_type: str | None = None
    references: list[ReferenceBody] | None = None


class ConfigBody(msgspec.Struct, forbid_unknown_fields=True):
    compatibility: str


class ModeBody(msgspec.Struct):
    mode: str


def routes(registry: SchemaRegistry) -> list[Route]:
    table: list[tuple[str, str, Handler]] = [
        ("GET", "/subjects", _list_subjects),
        ("POST", "/subjects/{subject}", _lookup),
        ("DELETE", "/subjects/{subject}", _delete_subject),
        ("GET", "/subjects/{subject}/versions", _list_versions),
        ("POST", "/subjects/{subject}/versions", _register),
        ("GET", "/subjects/{subject}/versions/{version}", _get_version),
        ("DELETE", "/subjects/{subject}/versions/{version}", _delete_version),
        ("GET", "/subjects/{subject}/versions/{version}/schema", _get_version_text),
        ("GET", "/subjects/{subject}/versions/{version}/referencedby", _referenced_by),
        ("GET", "/schemas/types", _list_types),
        ("GET", "/schemas/ids/{id}", _get_schema),
        ("GET", "/schemas/ids/{id}/schema", _get_schema_text),
        ("GET", "/schemas/ids/{id}/subjects", _subjects_of_schema),
        ("GET", "/schemas/ids/{id}/versions", _versions_of_schema),
        ("POST", "/compatibility/subjects/{subject}/versions", _check),
        ("POST", "/compatibility/subjects/{subject}/versions/{version}", _check),
        ("GET", "/contexts", _list_contexts),
    ]
    for path in ("/config", "/config/{subject}"):
        table += [("GET", path, _get_level), ("PUT", path, _set_level), ("DELETE", path, _delete_level)]
    for path in ("/mode", "/mode/{subject}"):
        table += [("GET", path, _get_mode), ("PUT", path, _set_mode), ("DELETE", path, _get_mode)]
    return [_RawRoute(path, _endpoint(registry, handler), methods=[method]) for method, path, handler in table]


class _RawRoute(Route):
    """Matches the path before it is decoded, so that `a%2Fb` is one segment."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        raw = scope.get("raw_path")
        if scope["type"] != "http" or raw is None:
            return super().matches(scope)
        match, child = super().matches({**scope, "path": raw.decode("latin-1")})
        if match is not Match.NONE:
            child["path_params"] = {key: unquote(value) for key, value in child["path_params"].items()}
        return match, child


def _endpoint(registry: SchemaRegistry, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return _json(await handler(registry, request))
        except RegistryError as error:
            return _error(error.status, error.code, str(error))
        except StreamLakeError as error:
            return _error(500, errors.STORE_FAILED, f"Error in the backend data store: {error}")
        except ClientDisconnect:
            return _error(400, 400, "the client went away before its request was whole")  # nobody reads this
        except Exception:
            log.exception("a registry request failed", method=request.method, path=request.url.path)
            return _error(500, 500, "Internal Server Error: see the server's log")

    return endpoint


def _json(value: Any, status: int = 200) -> Response:
    content = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return Response(content, status, media_type=MEDIA_TYPE)


def _error(status: int, code: int, message: str) -> Response:
    answer = _json({"error_code": code, "message": message}, status)
    if status == errors.TOO_LARGE:
        answer.headers["connection"] = "close"  # else the server would go on to read a body that may never end
    return answer


# --- subjects


async def _list_subjects(registry: SchemaRegistry, request: Request) -> list[str]:
    prefix = request.query_params.get("subjectPrefix", "")
    return _page(request, await registry.subjects(prefix, _flag(request, "deleted"), _deleted_only(request)))


async def _list_versions(registry: SchemaRegistry, request: Request) -> list[int]:
    found = await registry.versions(_subject(request), _flag(request, "deleted"), _deleted_only(request))
    return _page(request, found)


async def _register(registry: SchemaRegistry, request: Request) -> dict[str, int]:
    return {"id": await registry.register(_subject(request), await _schema(request))}


async def _lookup(registry: SchemaRegistry, request: Request) -> dict[str, Any]:
    found = await registry.lookup(_subject(request), await _schema(request), _flag(request, "deleted"))
    return _registered(found, _format(request))


async def _get_version(registry: SchemaRegistry, request: Request) -> dict[str, Any]:
    found = await registry.version(_subject(request), _version(request), _flag(request, "deleted"))
    return _registered(found, _format(request))


async def _get_version_text(registry: SchemaRegistry, request: Request) -> bytes:
    found = await registry.version(_subject(request), _version(request), _flag(request, "deleted"))
    return shown_text(found.schema, _format(request)).encode()


async def _referenced_by(registry: SchemaRegistry, request: Request) -> list[int]:
    return _page(request, await registry.referring(_subject(request), _version(request)))


async def _delete_subject(registry: SchemaRegistry, request: Request) -> list[int]:
    return await registry.delete_subject(_subject(request), _flag(request, "permanent"))


async def _delete_version(registry: SchemaRegistry, request: Request) -> int:
    return await registry.delete_version(_subject(request), _version(request), _flag(request, "permanent"))


# --- schemas


async def _list_types(registry: SchemaRegistry, request: Request) -> list[str]:
    return sorted(KINDS)


async def _get_schema(registry: SchemaRegistry, request: Request) -> dict[str, Any]:
    return _shown(await registry.schema(_schema_id(request)), _format(request))


async def _get_schema_text(registry: SchemaRegistry, request: Request) -> bytes:
    return shown_text(await registry.schema(_schema_id(request)), _format(request)).encode()


async def _subjects_of_schema(registry: SchemaRegistry, request: Request) -> list[str]:
    rows = await registry.versions_of_schema(_schema_id(request), _flag(request, "deleted"))
    wanted = request.query_params.get("subject")
    return _page(request, [name for name in dict.fromkeys(row.subject for row in rows) if wanted in (None, name)])


async def _versions_of_schema(registry: SchemaRegistry, request: Request) -> list[dict[str, Any]]:
    rows = await registry.versions_of_schema(_schema_id(request), _flag(request, "deleted"))
    wanted = request.query_params.get("subject")
    found = [{"subject": row.subject, "version": row.version} for row in rows if wanted in (None, row.subject)]
    return _page(request, found)


async def _list_contexts(registry: SchemaRegistry, request: Request) -> list[str]:
    return _page(request, ["."])


# --- compatibility, configuration, mode


async def _check(registry: SchemaRegistry, request: Request) -> dict[str, Any]:
    why = await registry.check(_subject(request), await _schema(request), request.path_params.get("version"))
    verdict: dict[str, Any] = {"is_compatible": not why}
    return verdict | {"messages": why} if _flag(request, "verbose") else verdict


async def _get_level(registry: SchemaRegistry, request: Request) -> dict[str, str]:
    level = await registry.level(_subject(request), _flag(request, "defaultToGlobal"))
    return {"compatibilityLevel": level.value}


async def _set_level(registry: SchemaRegistry, request: Request) -> dict[str, str]:
    body = await _decoded(request, ConfigBody, errors.INVALID_LEVEL)
    return {"compatibility": (await registry.set_level(_subject(request), body.compatibility)).value}


async def _delete_level(registry: SchemaRegistry, request: Request) -> dict[str, str]:
    return {"compatibilityLevel": (await registry.delete_level(_subject(request))).value}


async def _get_mode(registry: SchemaRegistry, request: Request) -> dict[str, str]:
    return {"mode": READWRITE}


async def _set_mode(registry: SchemaRegistry, request: Request) -> dict[str, str]:
    mode = (await _decoded(request, ModeBody, errors.INVALID_MODE)).mode
    if mode not in MODES:
        raise RegistryError(errors.INVALID_MODE, f"'{mode[:50]}' is no mode; modes are {', '.join(sorted(MODES))}")
    if mode != READWRITE:
        raise RegistryError(errors.NOT_PERMITTED, f"only {READWRITE} is supported")
    return {"mode": mode}


# --- requests


def _subject(request: Request) -> str:
    return str(request.path_params.get("subject", GLOBAL))


def _version(request: Request) -> str:
    return str(request.path_params["version"])


def _schema_id(request: Request) -> int:
    text = request.path_params["id"]
    digits = text.lstrip("0")
    if not (text.isascii() and text.isdigit()) or len(digits) > 10 or int(text[-10:]) > SCHEMA_ID_MAX:
        raise RegistryError(errors.SCHEMA_NOT_FOUND, f"Schema {text[:50]} not found: ids are numbers")
    return int(text[-10:])


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() == "true"


def _deleted_only(request: Request) -> bool:
    """Confluent's server calls it deletedOnly, its Python client deleted_only."""
    return _flag(request, "deletedOnly") or _flag(request, "deleted_only")


def _page(request: Request, items: Sequence[Any]) -> list[Any]:
    """`limit` below zero, as by default, means all."""
    try:
        offset = max(int(request.query_params.get("offset", 0)), 0)
        limit = int(request.query_params.get("limit", -1))
    except ValueError:
        raise RegistryError(400, "offset and limit are numbers") from None
    return list(items[offset:] if limit < 0 else items[offset : offset + limit])


async def _schema(request: Request) -> NewSchema:
    body = await _decoded(request, SchemaBody, errors.INVALID_SCHEMA)
    references = tuple(Reference(one.name, one.subject, one.version) for one in body.references or ())
    return NewSchema(body.schema, body.schema_type or AVRO, references, _flag(request, "normalize"))


async def _decoded(request: Request, kind: type[T], code: int) -> T:
    """`code` is the error for JSON that is no `kind`."""
    try:
        return msgspec.json.decode(await _body(request), type=kind)
    except msgspec.ValidationError as error:
        raise RegistryError(code, f"the body is not what this request takes: {error}") from None
    except (ValueError, RecursionError) as error:  # msgspec's DecodeError; text that is not UTF-8; brackets without end
        raise RegistryError(400, f"the body is not JSON: {error}") from None


async def _body(request: Request) -> bytes:
    parts, size_bytes = [], 0
    async for part in request.stream():
        size_bytes += len(part)
        if size_bytes > BODY_BYTES_MAX:
            raise RegistryError(errors.TOO_LARGE, f"the body is larger than {BODY_BYTES_MAX} bytes")
        parts.append(part)
    return b"".join(parts)


def _format(request: Request) -> str:
    return str(request.query_params.get("format", ""))


def _registered(found: RegisteredSchema, format: str) -> dict[str, Any]:
    row = {"subject": found.subject, "version": found.version, "id": found.schema_id}
    return row | _shown(found.schema, format)


def _shown(schema: SchemaRow, format: str) -> dict[str, Any]:
    """Without `schemaType`, as Confluent leaves it out for Avro, and without references if there are none."""
    shown: dict[str, Any] = {"schema": shown_text(schema, format)}
    if schema.kind != AVRO:
        shown["schemaType"] = schema.kind
    if schema.references:
        references = [{"name": one.name, "subject": one.subject, "version": one.version} for one in schema.references]
        shown["references"] = references
    return shown

"""The schema registry's REST interface as a client sees it: any method, path and body, through the real application on
a metadata store in memory. Whatever comes, the answer is JSON with one of Confluent's codes, and never an error of ours."""

import json
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote

from fuzz.avro_targets import DICTIONARY
from fuzz.target import MIB, Target, run_async
from starlette.applications import Starlette
from support.log_bench import FixedClock
from support.members import next_process

from streamlake.cluster.store.database import Database
from streamlake.cluster.store.schemas import SchemaStore
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor
from streamlake.http import registry as api
from streamlake.registry.schema_registry import SchemaRegistry

REQUESTS_EACH = 300  # on one registry; then a new one, so that it does not fill up
_RECORD = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}
_BODY = json.dumps({"schema": json.dumps(_RECORD)})
_MORE = json.dumps(
    {
        "schema": json.dumps(
            _RECORD | {"fields": [*_RECORD["fields"], {"name": "b", "type": ["null", "long"], "default": None}]}
        )
    }
)  # type: ignore[misc]

_SEEDS = (
    ("POST", "/subjects/s-value/versions", _BODY),
    ("POST", "/subjects/s-value/versions?normalize=true", _MORE),
    ("POST", "/subjects/s-value", _BODY),
    ("POST", "/compatibility/subjects/s-value/versions/latest?verbose=true", _MORE),
    ("POST", "/compatibility/subjects/s-value/versions/1", _BODY),
    ("GET", "/subjects?subjectPrefix=s&deleted=true&offset=0&limit=10", ""),
    ("GET", "/subjects/s-value/versions", ""),
    ("GET", "/subjects/s-value/versions/-1/schema", ""),
    ("GET", "/subjects/s-value/versions/1/referencedby", ""),
    ("GET", "/schemas/ids/1", ""),
    ("GET", "/schemas/ids/1/versions?subject=s-value", ""),
    ("GET", "/schemas/types", ""),
    ("DELETE", "/subjects/s-value/versions/1?permanent=true", ""),
    ("DELETE", "/subjects/s-value?permanent=false", ""),
    ("PUT", "/config/s-value", '{"compatibility": "FULL"}'),
    ("PUT", "/config", '{"compatibility": "NONE"}'),
    ("DELETE", "/config/s-value", ""),
    ("GET", "/config/s-value?defaultToGlobal=true", ""),
    ("PUT", "/mode", '{"mode": "READWRITE"}'),
    ("GET", "/contexts", ""),
)
TOKENS = (
    *DICTIONARY, b"GET", b"POST", b"PUT", b"DELETE", b"subjects", b"schemas", b"ids", b"versions", b"latest", b"%00", b"%2F",
    b"%ED%A0%80", b"%FF", b"0000000000000000001", b"00000000000" + b"9" * 30, b"0" * 11 + b"7" * 5000, b"4294967296",
    b"schemaType", b"references", b"compatibility", b"limit", b"offset", b"-99999999999999999999999", b"?", b"&", b"permanent",
)  # fmt: skip


def seeds() -> list[bytes]:
    """A line with method and path, then the body."""
    return [f"{method} {path}\n{body}".encode() for method, path, body in _SEEDS]


class _Log:
    """In place of the module's: shows the error that the answer hides."""

    def exception(self, *_: Any, **__: Any) -> None:
        raise


_app: Starlette | None = None
_served = 0


async def _fresh() -> Starlette:
    database = await Database.open("sqlite://", InlineExecutor(), FixedClock())
    membership = await next_process(database, FixedClock(), Ids(7))
    registry = SchemaRegistry(SchemaStore(database, membership.identity), InlineExecutor())
    app = Starlette(routes=api.routes(registry))
    for method, path, body in _SEEDS[:2]:
        await _request(app, method, path.encode(), body.encode())
    return app


def check(data: bytes) -> None:
    line, _, body = data.partition(b"\n")
    method, _, path = line.partition(b" ")
    # What an HTTP server lets through.
    path = b"/" + bytes(c for c in path if 0x20 < c < 0x7F and c != ord("#")).lstrip(b"/")
    name = method.decode("ascii", "replace").upper()
    run_async(_check(name if name in ("GET", "POST", "PUT", "DELETE") else "GET", path, body))


async def _check(method: str, path: bytes, body: bytes) -> None:
    global _app, _served
    if _app is None or _served >= REQUESTS_EACH:
        _app, _served = await _fresh(), 0
    _served += 1
    with patch.object(api, "log", _Log()):
        status, headers, answer = await _request(_app, method, path, body)
    assert status < 500, f"{status} {answer[:200]!r}"
    if status in (404, 405) and not headers.get(b"content-type", b"").startswith(b"application/vnd"):
        return  # no such route
    told = json.loads(answer)
    if status >= 400:
        assert str(told["error_code"]).startswith(str(status)) and told["message"]


async def _request(app: Starlette, method: str, path: bytes, body: bytes) -> tuple[int, Mapping[bytes, bytes], bytes]:
    raw, _, query = path.partition(b"?")
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": unquote(raw.decode("ascii")), "raw_path": raw, "query_string": query, "root_path": "",
        "headers": [(b"host", b"x"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8081),
    }  # fmt: skip
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(m.get("body", b"") for m in sent[1:])


TARGETS = [Target("registry", seeds, check, TOKENS, memory_bytes=64 * MIB)]

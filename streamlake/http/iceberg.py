"""The Iceberg REST catalog at `/iceberg`: who may ask, how much, and nothing else. The table worker answers.

Errors have the body that the Iceberg REST specification prescribes. Whoever may ask may do all that the server itself
may do in the catalog and its warehouse.
"""

import asyncio
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from streamlake.core.errors import OutcomeUnknown, StreamLakeError
from streamlake.table.task.control import FORCE_HEADER, CatalogAnswer, CatalogCall

PREFIX = "/iceberg/"
BODY_BYTES_MAX = 4 << 20
BODY_TIMEOUT_S = 30.0
DELEGATION_HEADER, VENDED = "x-iceberg-access-delegation", "vended-credentials"
METHODS = ["GET", "HEAD", "POST", "DELETE"]


def routes(
    ask: Callable[[CatalogCall], Awaitable[CatalogAnswer]],
    tokens: Sequence[str],
    refusal: str | None,
    vend_credentials: bool = False,
) -> list[Route]:
    """`refusal`: why nobody is answered, if so. Without `tokens` everybody is, except web pages."""

    async def endpoint(request: Request) -> Response:
        if refusal is not None:
            return _error(403, "ForbiddenException", refusal)
        if tokens and not _knows_one(tokens, request.headers.get("authorization", "")):
            answer = _error(401, "NotAuthorizedException", "the request needs a token of [http] tokens: send it as "
                "`Authorization: Bearer …`")  # fmt: skip
            answer.headers["www-authenticate"] = "Bearer"
            return answer
        if not tokens and "origin" in request.headers:  # any page in a browser of this machine could reach us
            return _error(403, "ForbiddenException", "web pages are answered only with a token of [http] tokens")
        return await _answer(ask, request, vend_credentials)

    return [Route(PREFIX + "{path:path}", endpoint, methods=METHODS)]


def refusal_of(host: str, tokens: Sequence[str]) -> str | None:
    """Why the endpoint may not be offered on an HTTP port that listens on `host`."""
    if tokens or _is_loopback(host):
        return None
    return (
        f"the Iceberg REST catalog is not offered on {host or 'all addresses'} without tokens, as anybody could change "
        "and drop tables: set tokens in [http], or listen on 127.0.0.1 (server.http_host)"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _knows_one(tokens: Sequence[str], header: str) -> bool:
    scheme, _, given = header.partition(" ")
    # Each is compared, and in constant time: how long it takes tells nothing of a token.
    known = [hmac.compare_digest(token.encode(), given.strip().encode()) for token in tokens]
    return scheme.lower() == "bearer" and any(known)


async def _answer(
    ask: Callable[[CatalogCall], Awaitable[CatalogAnswer]], request: Request, vend_credentials: bool
) -> Response:
    reads = request.method in ("GET", "HEAD")
    try:
        answer = await ask(await _call(request, vend_credentials))
    except _TooLarge:
        refused = _error(413, "BadRequestException", f"the body is larger than {BODY_BYTES_MAX} bytes")
        refused.headers["connection"] = "close"  # else the server would go on to read a body that may never end
        return refused
    except (ClientDisconnect, TimeoutError):
        return _error(408, "BadRequestException", "the body of the request did not arrive")
    except OutcomeUnknown as error:
        if reads:
            return _error(503, "ServiceUnavailableException", str(error))
        return _error(504, "CommitStateUnknownException", str(error))
    except StreamLakeError as error:
        return _error(503, "ServiceUnavailableException", str(error))
    headers = {"etag": answer.etag} if answer.etag else None
    return Response(answer.body, answer.status, headers, media_type="application/json")


async def _call(request: Request, vend_credentials: bool) -> CatalogCall:
    scope = request.scope
    raw = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")  # percent-encoded: names hold slashes
    async with asyncio.timeout(BODY_TIMEOUT_S):
        body = await _body(request)
    return CatalogCall(
        number=0,
        method=request.method,
        path=raw.removeprefix(PREFIX),
        query=scope["query_string"].decode("latin-1"),
        body=body,
        etag=request.headers.get("if-none-match", ""),
        forced=request.headers.get(FORCE_HEADER, "").lower() == "true",
        vended=vend_credentials and VENDED in request.headers.get(DELEGATION_HEADER, ""),
    )


class _TooLarge(Exception):
    pass


async def _body(request: Request) -> bytes:
    parts, size_bytes = [], 0
    async for part in request.stream():
        size_bytes += len(part)
        if size_bytes > BODY_BYTES_MAX:
            raise _TooLarge
        parts.append(part)
    return b"".join(parts)


def _error(status: int, kind: str, message: str) -> Response:
    body = {"error": {"message": message, "type": kind, "code": status}}
    return Response(msgspec.json.encode(body), status, media_type="application/json")

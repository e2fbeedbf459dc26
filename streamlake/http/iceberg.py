"""The Iceberg REST catalog at `/iceberg`: who may ask, how much, and nothing else. The table worker answers.

Errors have the body that the Iceberg REST specification prescribes. Whoever may ask may do all that the server itself
may do in the catalog and its warehouse.
"""

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from streamlake.core.errors import OutcomeUnknown, StreamLakeError
from streamlake.core.sockets import is_loopback
from streamlake.http import body, oauth
from streamlake.http.tokens import WRONG_KEPT_S, Tokens
from streamlake.table.task.control import FORCE_HEADER, CatalogAnswer, CatalogCall

PREFIX = "/iceberg/"
BODY_BYTES_MAX = 4 << 20
DELEGATION_HEADER, DELEGATION_CHARS_MAX = "x-iceberg-access-delegation", 200
METHODS = ["GET", "HEAD", "POST", "DELETE"]
TOKEN_PATH = f"{PREFIX}v1/oauth/tokens"


def routes(
    ask: Callable[[CatalogCall], Awaitable[CatalogAnswer]],
    tokens: Sequence[str],
    refusal: str | None,
) -> list[Route]:
    """`refusal`: why nobody is answered, if so. Without `tokens` everybody is, except web pages."""
    known = Tokens(tokens)

    def refuse(request: Request) -> Response | None:
        if refusal is not None:
            return error_answer(403, "ForbiddenException", refusal)
        if not tokens and "origin" in request.headers:  # any page in a browser of this machine could reach us
            return error_answer(403, "ForbiddenException", "web pages are answered only with a token of [http] tokens")
        return None

    async def endpoint(request: Request) -> Response:
        if (refused := refuse(request) or refuse_stranger(request, known)) is not None:
            return refused
        return await _answer(ask, request)

    async def token(request: Request) -> Response:
        return refuse(request) or await oauth.answer(request, known)

    catalog = Route(PREFIX + "{path:path}", endpoint, methods=METHODS)
    return [Route(TOKEN_PATH, token, methods=["POST"]), catalog]


def refusal_of(host: str, tokens: Sequence[str]) -> str | None:
    """Why the endpoint may not be offered on an HTTP port that listens on `host`."""
    if tokens or is_loopback(host):
        return None
    return (
        f"the Iceberg REST catalog is not offered on {host or 'all addresses'} without tokens, as anybody could change "
        "and drop tables: set tokens in [http], or listen on 127.0.0.1 (server.http_host)"
    )


def refuse_stranger(request: Request, known: Tokens) -> Response | None:
    if not known.are_needed:
        return None
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    is_bearer = scheme.lower() == "bearer" and given
    verdict = known.check(given.strip(), request.client.host if request.client else "") if is_bearer else "unknown"
    if verdict == "known":
        return None
    if verdict == "too many":
        answer = error_answer(429, "TooManyRequestsException", f"too many wrong tokens: try again in {WRONG_KEPT_S} s")
        answer.headers["retry-after"] = str(WRONG_KEPT_S)
        return answer
    text = "the request needs a token of [http] tokens: send it as `Authorization: Bearer …`"
    answer = error_answer(401, "NotAuthorizedException", text)
    answer.headers["www-authenticate"] = "Bearer"
    return answer


async def _answer(ask: Callable[[CatalogCall], Awaitable[CatalogAnswer]], request: Request) -> Response:
    reads = request.method in ("GET", "HEAD")
    try:
        answer = await ask(await _call(request))
    except body.TooLarge as error:
        refused = error_answer(413, "BadRequestException", str(error))
        refused.headers["connection"] = "close"
        return refused
    except (ClientDisconnect, TimeoutError):
        return error_answer(408, "BadRequestException", "the body of the request did not arrive")
    except OutcomeUnknown as error:
        if reads:
            return error_answer(503, "ServiceUnavailableException", str(error))
        return error_answer(504, "CommitStateUnknownException", str(error))
    except StreamLakeError as error:
        return error_answer(503, "ServiceUnavailableException", str(error))
    headers = {"etag": answer.etag, "cache-control": answer.cache}
    given = {name: value for name, value in headers.items() if value}
    return Response(answer.body, answer.status, given, media_type="application/json")


async def _call(request: Request) -> CatalogCall:
    scope = request.scope
    raw = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")  # percent-encoded: names hold slashes
    return CatalogCall(
        number=0,
        method=request.method,
        path=raw.removeprefix(PREFIX),
        query=scope["query_string"].decode("latin-1"),
        body=await body.read(request, BODY_BYTES_MAX),
        etag=request.headers.get("if-none-match", ""),
        forced=request.headers.get(FORCE_HEADER, "").lower() == "true",
        delegation=request.headers.get(DELEGATION_HEADER, "")[:DELEGATION_CHARS_MAX],
    )


def error_answer(status: int, kind: str, message: str) -> Response:
    content = {"error": {"message": message, "type": kind, "code": status}}
    return Response(msgspec.json.encode(content), status, media_type="application/json")

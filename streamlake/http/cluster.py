"""The cluster over HTTP: what it looks like, and drains of brokers. Any broker answers.

    GET  /v1/cluster
    POST /v1/brokers/{node}/drain?timeout_s=30&until_restart=false    200 when the node is empty, 202 if not yet
    POST /v1/brokers/{node}/undrain

Requests that change something need a token if [http] tokens has any. Without tokens they are open, as the Kafka port
is, but to web pages.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streamlake.core.errors import Invalid, StreamLakeError
from streamlake.http.iceberg import error_answer, refuse_stranger
from streamlake.http.tokens import Tokens
from streamlake.iceberg_rest.problem import problem_of_ours

TIMEOUT_S = 30.0
TIMEOUT_S_MAX = 600.0
LOOK_INTERVAL_S = 0.25
BOOLEANS = {"true": True, "false": False}


class Cluster(Protocol):
    """All raise Unavailable and OutcomeUnknown; with a node NotFound, too. What they return is JSON-ready."""

    async def status(self) -> dict[str, Any]: ...

    async def progress(self, node: int) -> dict[str, Any]:
        """What the node has; `done` if that is nothing."""
        ...

    async def drain(self, node: int, *, until_restart: bool) -> None:
        """Invalid if nobody else could have what the node has."""
        ...

    async def undrain(self, node: int) -> None: ...


def routes(cluster: Cluster, tokens: Sequence[str]) -> list[Route]:
    known = Tokens(tokens)

    def guarded(handle: Callable[[Request], Awaitable[Response]], writes: bool) -> Callable[..., Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            if writes and (refused := refusal(request, known)) is not None:
                return refused
            try:
                return await handle(request)
            except StreamLakeError as error:
                problem = problem_of_ours(error)
                return error_answer(problem.status, problem.kind, str(problem))

        return answer

    async def status(_request: Request) -> Response:
        return JSONResponse(await cluster.status())

    async def drain(request: Request) -> Response:
        node, timeout_s, until_restart = _node(request), _timeout_s(request), _until_restart(request)
        await cluster.drain(node, until_restart=until_restart)
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while not (found := await cluster.progress(node))["done"] and loop.time() < until:
            if await request.is_disconnected():
                break  # nobody waits any more; the drain goes on
            await asyncio.sleep(LOOK_INTERVAL_S)
        return JSONResponse(found, 200 if found["done"] else 202)

    async def undrain(request: Request) -> Response:
        node = _node(request)
        await cluster.undrain(node)
        return JSONResponse(await cluster.progress(node))

    return [
        Route("/v1/cluster", guarded(status, writes=False)),
        Route("/v1/brokers/{node}/drain", guarded(drain, writes=True), methods=["POST"]),
        Route("/v1/brokers/{node}/undrain", guarded(undrain, writes=True), methods=["POST"]),
    ]


def refusal(request: Request, known: Tokens) -> Response | None:
    if not known.are_needed and "origin" in request.headers:  # any page in a browser of this machine could reach us
        return error_answer(403, "ForbiddenException", "web pages are answered only with a token of [http] tokens")
    return refuse_stranger(request, known)


def _node(request: Request) -> int:
    text = request.path_params["node"]
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Invalid(f"{text!r} is no node id: give a number, as `streamlake cluster status` shows it")
    return int(text)


def _timeout_s(request: Request) -> float:
    text = request.query_params.get("timeout_s", str(TIMEOUT_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= TIMEOUT_S_MAX:
        raise Invalid(f"timeout_s={text!r}: give seconds from 0 to {TIMEOUT_S_MAX:g}")
    return seconds


def _until_restart(request: Request) -> bool:
    text = request.query_params.get("until_restart", "false")
    if text not in BOOLEANS:
        raise Invalid(f"until_restart={text!r}: give true or false")
    return BOOLEANS[text]

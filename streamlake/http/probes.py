"""Probes: whether the process is to be started again (/live), and whether clients are to be sent to it (/ready).

A broker is alive as long as it answers and has not failed for good: a broker that was fenced, or whose disk is gone,
must be started again. It is ready from the moment that its Kafka port answers until it begins to stop. Neither depends
on other servers: an outage of the metadata store, say, must not end or hide all brokers at once. /healthz (app.py) says
what is wrong.
"""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


def routes(live: Callable[[], str | None], ready: Callable[[], str | None]) -> list[Route]:
    """Each returns why not, or None."""
    return [Route("/live", _probe(live)), Route("/ready", _probe(ready))]


def _probe(why_not: Callable[[], str | None]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_request: Request) -> Response:  # on the loop: it answers as long as that turns
        reason = why_not()
        return JSONResponse({"status": "ok" if reason is None else reason}, 200 if reason is None else 503)

    return answer

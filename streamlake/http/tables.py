"""Requests about one table over HTTP: what it would be, its dead letters, a redrive. The table worker answers.

    GET  /v1/tables/{topic}/plan?sample=1000&set=key=value     what the table would be, with these configs too
    GET  /v1/tables/{topic}/dead-letters?examples=3     by reason
    POST /v1/tables/{topic}/redrive?reason=             202: it will be done; `/v1/tables` says how far it is

The broker that writes the table answers; others say which one that is. Dead letters are records, so that as for what
changes something a token is needed, if [http] tokens has any. Without tokens it is open, as the Kafka port is, but to
web pages.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from streamlake.core.errors import Invalid, StreamLakeError
from streamlake.http.cluster import refusal
from streamlake.http.iceberg import error_answer
from streamlake.http.tokens import Tokens
from streamlake.iceberg_rest.problem import problem_of_ours
from streamlake.table.task.control import CatalogAnswer

EXAMPLES = 3
EXAMPLES_MAX = 20
SAMPLE = 1_000
SAMPLE_MAX = 10_000


class Worker(Protocol):
    """Both raise NotFound, Conflict (another broker has the table), Unavailable, Full and OutcomeUnknown."""

    async def ask(self, topic: str, action: str, arguments: Mapping[str, str]) -> CatalogAnswer:
        """`action` is one of TableCall."""
        ...

    async def plan(self, topic: str, configs: Mapping[str, str], sample: int) -> CatalogAnswer:
        """Raises Invalid for configs that cannot be."""
        ...


def routes(worker: Worker, tokens: Sequence[str]) -> list[Route]:
    known = Tokens(tokens)

    async def answered(request: Request, asked: Callable[[str], Awaitable[CatalogAnswer]]) -> Response:
        if (refused := refusal(request, known)) is not None:
            return refused
        try:
            answer = await asked(request.path_params["topic"])
        except StreamLakeError as error:
            problem = problem_of_ours(error)
            return error_answer(problem.status, problem.kind, str(problem))
        return Response(answer.body, answer.status, media_type="application/json")

    async def dead_letters(request: Request) -> Response:
        async def asked(topic: str) -> CatalogAnswer:
            examples = _number(request, "examples", EXAMPLES, EXAMPLES_MAX)
            return await worker.ask(topic, "dead_letters", {"examples": str(examples)})

        return await answered(request, asked)

    async def redrive(request: Request) -> Response:
        async def asked(topic: str) -> CatalogAnswer:
            return await worker.ask(topic, "redrive", {"reason": request.query_params.get("reason", "")})

        return await answered(request, asked)

    async def plan(request: Request) -> Response:
        async def asked(topic: str) -> CatalogAnswer:
            sample = _number(request, "sample", SAMPLE, SAMPLE_MAX)
            return await worker.plan(topic, _configs(request), sample)

        return await answered(request, asked)

    return [
        Route("/v1/tables/{topic}/plan", plan),
        Route("/v1/tables/{topic}/dead-letters", dead_letters),
        Route("/v1/tables/{topic}/redrive", redrive, methods=["POST"]),
    ]


def _number(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and int(text) <= most):
        raise Invalid(f"{name}={text[:20]!r}: give a number from 0 to {most}")
    return int(text)


def _configs(request: Request) -> dict[str, str]:
    found = {}
    for text in request.query_params.getlist("set"):
        key, equals, value = text.partition("=")
        if not equals:
            raise Invalid(f"set={text[:100]!r}: give a config as KEY=VALUE")
        found[key] = value
    return found

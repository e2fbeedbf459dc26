"""What is asked about one table over HTTP: its dead letters, and that they are redriven. The table worker answers.

    GET  /v1/tables/{topic}/dead-letters?examples=3     by reason
    POST /v1/tables/{topic}/redrive?reason=             202: it will be done; `/v1/tables` says how far it is

The broker that writes the table answers; others say which one that is. Dead letters are records, so that as for what
changes something a token is needed, if [http] tokens has any. Without tokens it is open, as the Kafka port is, but to
web pages.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from streamlake.core.errors import Conflict, Invalid, NotFound, OutcomeUnknown, StreamLakeError
from streamlake.http.cluster import refusal
from streamlake.http.iceberg import error_answer
from streamlake.http.tokens import Tokens
from streamlake.table.task.control import CatalogAnswer

EXAMPLES = 3
EXAMPLES_MAX = 20

Ask = Callable[[str, str, Mapping[str, str]], Awaitable[CatalogAnswer]]


def routes(ask: Ask, tokens: Sequence[str]) -> list[Route]:
    """`ask`: of a topic, an action of TableCall, and its arguments. Raises NotFound, Conflict (not here), Unavailable,
    Full and OutcomeUnknown."""
    known = Tokens(tokens)

    async def answered(request: Request, action: str, arguments: Mapping[str, str]) -> Response:
        if (refused := refusal(request, known)) is not None:
            return refused
        try:
            answer = await ask(request.path_params["topic"], action, arguments)
        except NotFound as error:
            return error_answer(404, "NotFoundException", str(error))
        except Conflict as error:
            return error_answer(409, "ConflictException", str(error))
        except OutcomeUnknown as error:
            return error_answer(504, "OutcomeUnknownException", str(error))
        except StreamLakeError as error:
            return error_answer(503, "ServiceUnavailableException", str(error))
        return Response(answer.body, answer.status, media_type="application/json")

    async def dead_letters(request: Request) -> Response:
        try:
            examples = _examples(request)
        except Invalid as error:
            return error_answer(400, "BadRequestException", str(error))
        return await answered(request, "dead_letters", {"examples": str(examples)})

    async def redrive(request: Request) -> Response:
        return await answered(request, "redrive", {"reason": request.query_params.get("reason", "")})

    return [
        Route("/v1/tables/{topic}/dead-letters", dead_letters),
        Route("/v1/tables/{topic}/redrive", redrive, methods=["POST"]),
    ]


def _examples(request: Request) -> int:
    text = request.query_params.get("examples", str(EXAMPLES))
    if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text) <= EXAMPLES_MAX):
        raise Invalid(f"examples={text[:20]!r}: give a number from 0 to {EXAMPLES_MAX}")
    return int(text)

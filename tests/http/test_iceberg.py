"""Who may ask the Iceberg REST catalog, how much, and what is answered when the table worker does not."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from support.http_routes import serving
from support.wait import DEADLINE_S

from streamlake.core.errors import Full, OutcomeUnknown, Unavailable
from streamlake.http import body, iceberg, tokens
from streamlake.table.task.control import CatalogAnswer, CatalogCall

TOKEN, OTHER = "t0ken-of-sixteen-letters", "an0ther-of-the-same-kind"
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


class Worker:
    """Answers whatever it is asked, or raises."""

    def __init__(self) -> None:
        self.calls: list[CatalogCall] = []
        self.error: Exception | None = None
        self.answer = CatalogAnswer(0, 200, b'{"a":1}', '"tag"')

    async def ask(self, call: CatalogCall) -> CatalogAnswer:
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        return self.answer


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def serve(worker: Worker) -> Serve:
    def serve(
        tokens: tuple[str, ...] = (), refusal: str | None = None
    ) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        return serving(iceberg.routes(worker.ask, tokens, refusal))

    return serve


async def test_a_request_goes_to_the_worker_as_it_is(serve: Serve, worker: Worker) -> None:
    async with serve() as http:
        headers = {"If-None-Match": '"old"', "X-StreamLake-Force": "true"}
        answer = await http.post("/iceberg/v1/namespaces/a%1Fb/tables/c%2Fd?x=%41&y", content=b"{}", headers=headers)
        assert (answer.status_code, answer.json(), answer.headers["etag"]) == (200, {"a": 1}, '"tag"')
        assert answer.headers["content-type"] == "application/json"
        await http.head("/iceberg/v1/config")
        assert (await http.put("/iceberg/v1/config")).status_code == 405
    assert worker.calls == [
        CatalogCall(0, "POST", "v1/namespaces/a%1Fb/tables/c%2Fd", "x=%41&y", b"{}", '"old"', True),
        CatalogCall(0, "HEAD", "v1/config"),
    ]


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer nonsense", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x"]
)
async def test_without_a_token_nobody_is_answered(serve: Serve, worker: Worker, header: str) -> None:
    async with serve((OTHER, TOKEN)) as http:
        refused = await http.get("/iceberg/v1/config", headers={"Authorization": header} if header else {})
    assert (refused.status_code, refused.json()["error"]["type"]) == (401, "NotAuthorizedException")
    assert refused.headers["www-authenticate"] == "Bearer" and TOKEN not in refused.text
    assert worker.calls == []


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer {OTHER}"])
async def test_any_of_the_tokens_will_do(serve: Serve, header: str) -> None:
    async with serve((OTHER, TOKEN)) as http:
        headers = {"Authorization": header, "Origin": "https://page.example"}
        assert (await http.get("/iceberg/v1/config", headers=headers)).status_code == 200


async def test_who_guesses_is_slowed_down(serve: Serve, worker: Worker) -> None:
    async with serve((TOKEN,)) as http:
        for n in range(tokens.WRONG_MAX):
            assert (await http.get("/iceberg/v1/x", headers={"Authorization": f"Bearer guess-{n}"})).status_code == 401
        blocked = await http.get("/iceberg/v1/x", headers={"Authorization": f"Bearer {TOKEN}"})
        assert (blocked.status_code, blocked.headers["retry-after"]) == (429, "10")
        assert blocked.json()["error"]["type"] == "TooManyRequestsException"
        form = {"grant_type": "client_credentials", "client_secret": TOKEN}
        assert (await http.post("/iceberg/v1/oauth/tokens", data=form)).status_code == 429, "the same places"
    assert worker.calls == []


async def test_without_a_token_nothing_is_guessed(serve: Serve) -> None:
    async with serve((TOKEN,)) as http:
        for _ in range(tokens.WRONG_MAX + 1):
            assert (await http.get("/iceberg/v1/x")).status_code == 401


async def test_tokens_by_oauth2(serve: Serve, worker: Worker) -> None:
    form = {"grant_type": "client_credentials", "client_id": "me", "client_secret": TOKEN}
    async with serve((TOKEN,)) as http:
        got = (await http.post("/iceberg/v1/oauth/tokens", data=form)).json()["access_token"]
        assert (await http.get("/iceberg/v1/x", headers={"Authorization": f"Bearer {got}"})).status_code == 200
    async with serve((), "because") as http:
        assert (await http.post("/iceberg/v1/oauth/tokens", data=form)).status_code == 403
    async with serve() as http:
        page = {"Origin": "https://page.example"}
        assert (await http.post("/iceberg/v1/oauth/tokens", data=form, headers=page)).status_code == 403
    assert [call.path for call in worker.calls] == ["v1/x"]


async def test_a_web_page_needs_a_token(serve: Serve, worker: Worker) -> None:
    """A browser on this machine reaches loopback, whatever page it shows."""
    async with serve() as http:
        refused = await http.post("/iceberg/v1/tables/rename", headers={"Origin": "https://page.example"})
    assert (refused.status_code, worker.calls) == (403, [])


async def test_how_a_client_would_reach_files_goes_along(serve: Serve, worker: Worker) -> None:
    worker.answer = CatalogAnswer(0, 200, b"{}", cache="no-store")
    async with serve() as http:
        answer = await http.get("/iceberg/v1/x", headers={"X-Iceberg-Access-Delegation": "remote-signing, other"})
        assert (answer.headers["cache-control"], "etag" in answer.headers) == ("no-store", False)
        await http.get("/iceberg/v1/x", headers={"X-Iceberg-Access-Delegation": "x" * 10_000})
    assert [call.delegation for call in worker.calls] == ["remote-signing, other", "x" * 200]


async def test_an_endpoint_that_is_refused_says_why(serve: Serve, worker: Worker) -> None:
    async with serve((), "because") as http:
        refused = await http.get("/iceberg/v1/config")
    assert refused.json() == {"error": {"message": "because", "type": "ForbiddenException", "code": 403}}
    assert (refused.status_code, worker.calls) == (403, [])


@pytest.mark.parametrize(
    ("host", "tokens", "offered"),
    [
        ("127.0.0.1", (), True),
        ("127.3.2.1", (), True),
        ("::1", (), True),
        ("localhost", (), True),
        ("0.0.0.0", (), False),
        ("::", (), False),
        ("", (), False),
        ("lake.example.com", (), False),
        ("192.168.1.1", (), False),
        ("0.0.0.0", (TOKEN,), True),
    ],
)
def test_where_it_is_offered(host: str, tokens: tuple[str, ...], offered: bool) -> None:
    why = iceberg.refusal_of(host, tokens)
    assert (why is None) == offered
    assert offered or (why is not None and "set tokens in [http]" in why)


async def test_bodies_have_a_limit(serve: Serve, worker: Worker) -> None:
    async with serve() as http:
        small = await http.post("/iceberg/v1/x", content=b"x" * iceberg.BODY_BYTES_MAX)
        assert small.status_code == 200 and len(worker.calls[0].body) == iceberg.BODY_BYTES_MAX
        large = await http.post("/iceberg/v1/x", content=b"x" * (iceberg.BODY_BYTES_MAX + 1))
        assert (large.status_code, large.headers["connection"], len(worker.calls)) == (413, "close", 1)


async def test_a_body_that_does_not_arrive(serve: Serve, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "TIMEOUT_S", 0.05)

    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with serve() as http:
        reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
        writer.write(b"POST /iceberg/v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        async with asyncio.timeout(DEADLINE_S):
            assert b" 408 " in await reader.readline()
        writer.close()
    assert worker.calls == []


@pytest.mark.parametrize(
    ("error", "method", "status", "kind"),
    [
        (Full("many"), "POST", 503, "ServiceUnavailableException"),
        (Unavailable("starting"), "GET", 503, "ServiceUnavailableException"),
        (OutcomeUnknown("gone"), "GET", 503, "ServiceUnavailableException"),
        (OutcomeUnknown("gone"), "POST", 504, "CommitStateUnknownException"),
        (OutcomeUnknown("gone"), "DELETE", 504, "CommitStateUnknownException"),
    ],
)
async def test_without_an_answer(
    serve: Serve, worker: Worker, error: Exception, method: str, status: int, kind: str
) -> None:
    worker.error = error
    async with serve() as http:
        answer = await http.request(method, "/iceberg/v1/x")
    told: dict[str, Any] = answer.json()["error"]
    assert (answer.status_code, told) == (status, {"message": str(error), "type": kind, "code": status})

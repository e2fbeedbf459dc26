"""The OAuth2 way to a token, by the letter of RFC 6749."""

import base64
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from streamlake.http import oauth
from streamlake.http.tokens import WRONG_MAX, Tokens

TOKEN = "t0ken+of/sixteen~letters="
SECRET = {"grant_type": "client_credentials", "client_secret": TOKEN}
EXCHANGE = {"grant_type": oauth.EXCHANGE, "subject_token_type": oauth.ACCESS_TOKEN}


def client(*tokens: str) -> httpx.AsyncClient:
    known = Tokens(tokens)

    async def answer(request: Request) -> Response:
        return await oauth.answer(request, known)

    app = Starlette(routes=[Route("/", answer, methods=["POST"])])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with client("an0ther-of-the-same-kind", TOKEN) as http:
        yield http


def basic(text: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        (SECRET, {}),
        ({**SECRET, "client_id": "me", "scope": "catalog"}, {}),
        ({"grant_type": "client_credentials"}, basic(f"me:{TOKEN}")),
        ({"grant_type": "client_credentials"}, basic(f"me:{quote(TOKEN, safe='')}")),
        ({"grant_type": "client_credentials"}, basic(f":{TOKEN}")),
        ({**EXCHANGE, "subject_token": TOKEN}, {}),
        ({**EXCHANGE, "subject_token": TOKEN}, {"Authorization": f"Bearer {TOKEN}"}),
    ],
)
async def test_who_knows_a_secret_gets_a_token(
    http: httpx.AsyncClient, form: dict[str, str], headers: dict[str, str]
) -> None:
    answer = await http.post("/", data=form, headers=headers)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.json() == {
        "access_token": TOKEN, "token_type": "bearer", "issued_token_type": oauth.ACCESS_TOKEN, "expires_in": 3600,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "status", "error"),
    [
        ({"data": {**SECRET, "client_secret": "nonsense"}}, 401, "invalid_client"),
        ({"data": {"grant_type": "client_credentials"}}, 401, "invalid_client"),
        ({"data": {"grant_type": "client_credentials"}, "headers": basic("me:nonsense")}, 401, "invalid_client"),
        ({"data": SECRET, "headers": basic("me")}, 401, "invalid_client"),
        ({"data": SECRET, "headers": {"Authorization": "Basic ???"}}, 401, "invalid_client"),
        ({"data": SECRET, "headers": {"Authorization": "Basic /w=="}}, 401, "invalid_client"),
        ({"data": {**EXCHANGE, "subject_token": "nonsense"}}, 401, "invalid_client"),
        ({"data": {**SECRET, "grant_type": "password"}}, 400, "unsupported_grant_type"),
        ({"data": {"client_secret": TOKEN}}, 400, "invalid_request"),
        ({"json": SECRET}, 400, "invalid_request"),
        ({"content": b"\xff\xfe=1"}, 400, "invalid_request"),
        ({"content": b"grant_type=client_credentials&client_secret=a&client_secret=b"}, 400, "invalid_request"),
        ({"content": b"&".join(b"k%d=1" % n for n in range(1000))}, 400, "invalid_request"),
        ({"content": b"x" * (oauth.FORM_BYTES_MAX + 1)}, 413, "invalid_request"),
    ],
)
async def test_refusals(http: httpx.AsyncClient, given: dict[str, Any], status: int, error: str) -> None:
    answer = await http.post("/", **given)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.headers["cache-control"] == "no-store" and TOKEN not in answer.text
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert answer.json()["error_description"]


async def test_guesses_are_slowed_down(http: httpx.AsyncClient) -> None:
    for n in range(WRONG_MAX):
        assert (await http.post("/", data={**SECRET, "client_secret": f"guess-{n}"})).status_code == 401
    blocked = await http.post("/", data=SECRET)
    assert (blocked.status_code, blocked.headers["retry-after"]) == (429, "10")
    assert blocked.json()["error"] == "temporarily_unavailable"


async def test_a_server_without_tokens_gives_one_to_anybody() -> None:
    async with client() as http:
        assert (await http.post("/", data=SECRET)).json()["access_token"] == oauth.ANYBODY

"""Bodies within limits. Their answers on a real socket are in test_iceberg.py."""

import asyncio
from collections.abc import Iterable

import pytest
from starlette.requests import ClientDisconnect, Request

from streamlake.http import body


def request(parts: Iterable[bytes], end: bool = True) -> Request:
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages += [{"type": "http.request", "body": b"", "more_body": False}] if end else []

    async def receive() -> dict[str, object]:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)


async def test_parts_are_joined_up_to_the_limit() -> None:
    assert await body.read(request([b"ab", b"c"]), 3) == b"abc"
    with pytest.raises(body.TooLarge, match="larger than 2 bytes"):
        await body.read(request([b"ab", b"c"], end=False), 2)


async def test_one_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "TIMEOUT_S", 0.01)
    with pytest.raises(TimeoutError):
        await body.read(request([b"ab"], end=False), 10)


async def test_one_whose_client_goes_away() -> None:
    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        await body.read(Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive), 10)

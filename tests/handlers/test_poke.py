"""Poke: images that are behind are read again."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from support.two_brokers import two_brokers

from streamlake.cluster.secret import Life
from streamlake.handlers.poke import handle
from streamlake.protocol.broker_messages.poke import PokeRequest
from streamlake.protocol.errors import ErrorCode


@pytest.mark.parametrize(
    ("peer", "revision", "code", "is_stale"),
    [
        (Life(2, 4), 8, ErrorCode.NONE, True),
        (Life(2, 4), 7, ErrorCode.NONE, False),
        (Life(2, 4), -1, ErrorCode.NONE, False),
        (None, 8, ErrorCode.CLUSTER_AUTHORIZATION_FAILED, False),
    ],
)
async def test_who_is_behind_looks(peer: Life | None, revision: int, code: ErrorCode, is_stale: bool) -> None:
    image = SimpleNamespace(revision=7, stale=asyncio.Event())
    ctx: Any = SimpleNamespace(brokers=two_brokers())
    ctx.brokers.images.append(image)
    exchange: Any = SimpleNamespace(body=PokeRequest(revision), peer=peer)
    assert (await handle(ctx, exchange)).error_code == code
    assert image.stale.is_set() == is_stale

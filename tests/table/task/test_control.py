import asyncio
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.catalogs.config import CatalogConfig
from streamlake.core.errors import Corrupt
from streamlake.http.iceberg import BODY_BYTES_MAX
from streamlake.iceberg_rest.service import ANSWER_BYTES_MAX
from streamlake.table.task.control import (
    LINE_BYTES_MAX,
    CatalogAnswer,
    CatalogCall,
    FromServer,
    FromWorker,
    TableReport,
    TableSpec,
    WorkerSettings,
    encode,
    read_message,
)

SPEC = TableSpec("orders", UUID(int=7), 3, {"streamlake.table.enable": "true"}, True, 4, 1)
REPORT = TableReport("orders", UUID(int=7), "default.orders", "running", positions=(1, 2), skipped={"control": 1})
LAKE = CatalogConfig("sql", "lake", {"secret": "x"})
SETTINGS = WorkerSettings("127.0.0.1", 9092, 0, "http://r", "c", 1, 2, "info", False, {"lake": LAKE}, "lake")


def stream(data: bytes, limit: int = 1 << 16) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=limit)
    reader.feed_data(data)
    reader.feed_eof()
    return reader


async def test_both_ways_and_the_end() -> None:
    reader = stream(encode(SETTINGS) + encode(FromServer([SPEC, SPEC])) + encode(FromServer([])))
    assert await read_message(reader, WorkerSettings) == SETTINGS
    assert await read_message(reader, FromServer) == FromServer([SPEC, SPEC])
    assert await read_message(reader, FromServer) == FromServer([])
    assert await read_message(reader, FromServer) is None
    assert await read_message(stream(encode(FromWorker(REPORT))), FromWorker) == FromWorker(REPORT)


async def test_calls_of_the_catalog() -> None:
    call = FromServer(call=CatalogCall(7, "POST", "v1/a%2Fb", "x=1", b'{\n"\xff"}', '"tag"', True))
    answer = FromWorker(answer=CatalogAnswer(7, 200, b"{\n}", '"tag"'))
    assert await read_message(stream(encode(call)), FromServer) == call
    assert await read_message(stream(encode(answer)), FromWorker) == answer


async def test_the_largest_body_and_answer_fit_into_a_line() -> None:
    for message in (
        FromServer(call=CatalogCall(7, "POST", "v1/" + "a" * 60_000, "q" * 60_000, b"\xff" * BODY_BYTES_MAX)),
        FromWorker(answer=CatalogAnswer(7, 200, b"\xff" * ANSWER_BYTES_MAX)),
    ):
        assert len(encode(message)) < LINE_BYTES_MAX


async def test_a_torn_last_line_is_the_end() -> None:
    assert await read_message(stream(encode(FromServer([SPEC]))[:-3]), FromServer) is None


async def test_a_line_without_end_is_refused() -> None:
    with pytest.raises(Corrupt, match="longer than"):
        await read_message(stream(b"x" * 5000, limit=1000), FromServer)


@given(st.binary(max_size=200).map(lambda b: b.replace(b"\n", b" ")))
def test_other_bytes_are_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt, match="not a control message"):
        asyncio.run(read(data))


@pytest.mark.parametrize("data", [b"{}", b'{"tables": [], "call": {"number": 1, "method": "GET", "path": "x"}}'])
async def test_a_message_says_one_thing(data: bytes) -> None:
    with pytest.raises(Corrupt, match="tables or a call"):
        await read(data)


async def read(data: bytes) -> object:
    return await read_message(stream(data + b"\n"), FromServer)


async def test_a_dead_peer_is_the_end() -> None:
    reader = asyncio.StreamReader()
    reader.set_exception(ConnectionResetError())
    assert await read_message(reader, FromServer) is None

"""Brokers as commands find them."""

import socket

import pytest

from streamlake.cli import kafka
from streamlake.cli.kafka import Cluster, ask, check
from streamlake.core.errors import Invalid, NotFound, Unavailable
from streamlake.peers.offsets import EARLIEST, LATEST
from streamlake.protocol.errors import ErrorCode


def test_the_first_broker_that_answers(lake):
    async def question(there: Cluster) -> object:
        return await there.leaders("cli-cluster-none")

    with pytest.raises(NotFound):
        ask(f"127.0.0.1:1,{lake.http.removeprefix('http://')},{lake.bootstrap}", question)


async def test_none_that_answers_is_told_with_all_reasons(lake, monkeypatch):
    monkeypatch.setattr(kafka, "CONNECT_TIMEOUT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Unavailable) as told:
            await Cluster(f"127.0.0.1:1,127.0.0.1:{port},nowhere.invalid").__aenter__()
    assert "127.0.0.1:1: Connection refused" in str(told.value)
    assert f"127.0.0.1:{port}: no answer within 1 s" in str(told.value)
    assert "nowhere.invalid:9092: " in str(told.value)


async def test_offsets_and_leaders(run, lake):
    assert run("topic", "create", "cli-offsets", "-p", "3").returncode == 0
    assert run("topic", "produce", "cli-offsets", "-p", "1", text="a\nb\n").returncode == 0
    async with Cluster(lake.bootstrap) as there:
        assert [peer.address for peer in (await there.leaders("cli-offsets")).values()] == [lake.bootstrap] * 3
        assert await there.offsets("cli-offsets", [0, 1, 2], LATEST) == {0: 0, 1: 2, 2: 0}
        assert await there.offsets("cli-offsets", [1], EARLIEST) == {1: 0}
        assert await there.offsets("cli-offsets", [0, 1], 1 << 50) == {0: -1, 1: -1}


@pytest.mark.parametrize(
    ("code", "message", "kind", "says"),
    [
        (ErrorCode.TOPIC_ALREADY_EXISTS, "topic hello exists already", Invalid, "topic hello exists already"),
        (ErrorCode.TOPIC_ALREADY_EXISTS, "it is there", Invalid, "topic hello: it is there"),
        (ErrorCode.TOPIC_ALREADY_EXISTS, None, Invalid, "topic hello: topic already exists"),
        (ErrorCode.LEADER_NOT_AVAILABLE, None, Unavailable, "topic hello: leader not available"),
        (
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            "this topic does not exist",
            NotFound,
            "topic hello does not exist: `streamlake topic list` shows what there is",
        ),
        (12_345, None, Invalid, "topic hello: error code 12345"),
    ],
)
def test_what_codes_mean_to_a_person_is_said_once(code, message, kind, says):
    with pytest.raises(kind) as told:
        check("topic hello", code, message)
    assert str(told.value) == says
    check("topic hello", 0, "no error")

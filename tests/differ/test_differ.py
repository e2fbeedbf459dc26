"""The differential test's own parts, without Kafka: `make differ` runs the whole."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from differ.compare import ABSENT, Difference, Intended, compare, differing, read_intended
from differ.side import CLOSED, Side
from support.server import Server, serve
from support.wait import DEADLINE_S

from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.describe_cluster import DescribeClusterRequest
from streamlake.protocol.messages.metadata import MetadataRequest, MetadataResponse, MetadataResponseTopic


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(Server(tmp_path_factory.mktemp("differ"), "[tables]\nenabled = false\n"))


@pytest.fixture
def side(server: Server) -> Iterator[Side]:
    side = Side(server.port)
    yield side
    side.close()


def test_answers_are_kept_under_their_labels(side: Side) -> None:
    side.ask("plain", ApiKey.DESCRIBE_CLUSTER, 0, DescribeClusterRequest())
    side.raw("cut off", ApiKey.DESCRIBE_CLUSTER, 0, b"\x00\x00\x00\x01x")
    assert side.answers["describe_cluster/v0/cut off"] == CLOSED
    plain = side.answers["describe_cluster/v0/plain"]
    assert (plain["cluster_id"], plain["brokers"]["0"]["port"]) == ("<cluster>", "<port>")
    assert "throttle_time_ms" not in plain
    assert "endpoint_type" not in plain, "version 0 does not have it"
    with pytest.raises(AssertionError, match="two requests"):
        side.ask("plain", ApiKey.DESCRIBE_CLUSTER, 0, DescribeClusterRequest())


def test_what_must_differ_has_names(side: Side) -> None:
    topic = side.topic("named")
    side.ask("all", ApiKey.METADATA, 13, MetadataRequest(topics=None))
    assert side.answers["metadata/v13/all"]["topics"]["named"]["topic_id"] == "<id of named>"
    row = MetadataResponseTopic(name="m-12345678-1234-1234-1234-123456789abc", topic_id=UUID(int=5))
    twice = side.plain(MetadataResponse(topics=(row, row)), 13)["topics"]
    assert list(twice) == ["m-<uuid>", "m-<uuid>#2"]
    assert twice["m-<uuid>"]["topic_id"] == "<uuid>"
    assert side.plain(topic.id, 0) == "<id of named>"


def test_differences_have_a_path() -> None:
    kafka = {"error_code": 0, "topics": {"a": {"partitions": [], "name": None}}}
    ours = {"error_code": False, "topics": {"a": {"partitions": [], "name": ""}, "b": {}}}
    assert list(differing(kafka, ours)) == [
        Difference("error_code", 0, False),
        Difference("topics.a.name", None, ""),
        Difference("topics.b", ABSENT, {}),
    ]
    assert list(differing(CLOSED, {})) == [Difference("answer", CLOSED, {})]


def test_only_what_is_on_the_list_may_differ_and_must() -> None:
    kafka = {"x/v0/a": {"code": 1}, "x/v1/a": {"code": 1}, "x/v0/b": {"code": 7}, "x/v0/c": {"code": 5}}
    ours = {"x/v0/a": {"code": 2}, "x/v1/a": {"code": 3}, "x/v0/b": {"code": 7}, "x/v0/d": {"code": 5}}
    used = Intended("x/v?/a", "code", "why", kafka=1, ours=2)
    stale = Intended("x/v0/b", "*", "why")
    outcome = compare(kafka, ours, [used, stale])
    assert (outcome.requests, outcome.same, outcome.intended) == (5, 1, 1)
    assert set(outcome.unexpected) == {"x/v1/a", "x/v0/c", "x/v0/d"}
    assert outcome.stale == [stale]
    assert not outcome.good
    assert compare({"x/v0/a": 1}, {"x/v0/a": 1}, []).good


def test_every_intended_difference_has_a_reason() -> None:
    assert all(len(entry.reason) > 10 for entry in read_intended())


def test_without_java_nothing_is_compared_and_that_is_said() -> None:
    run = Path(__file__).parent / "run.py"
    environ = {**os.environ, "PATH": "/nowhere"}
    done = subprocess.run([sys.executable, str(run)], env=environ, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    assert "nothing was compared: no `java`" in done.stdout

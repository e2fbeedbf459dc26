"""The server as a whole: what keeps it from starting, what a stop leaves behind, and what it does not import."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from support.fake_worker import FakeWorkers
from support.raw_kafka import batch
from support.server import Server, is_running
from support.wait import DEADLINE_S, wait_until
from support.wire import Client, Topic, fetch_partition, fetch_topic, join_request, newest, produce_request

from streamlake import config
from streamlake.broker.machine import RealMachine
from streamlake.broker.process import READY_FILE, ServerProcess, _address, _reachable
from streamlake.core import native
from streamlake.core.errors import Invalid, Unavailable
from streamlake.core.tasks import ThreadExecutor
from streamlake.protocol.messages import ApiKey, fetch, metadata, offset_commit, offset_fetch

pytestmark = pytest.mark.whole

SMALL = {"wal_segment_bytes": 65_536, "wal_capacity_bytes": 1 << 20}
WITHOUT_TABLES = "[tables]\nenabled = false\n[storage]\nwal_segment_bytes = 65536\nwal_capacity_bytes = 1048576\n"
Start = Callable[..., Awaitable[ServerProcess]]


def server_of(data_dir: Path, **sections: dict[str, Any]) -> ServerProcess:
    overrides = {
        "server": {"port": 0, "http_port": 0} | sections.pop("server", {}),
        "storage": {"data_dir": data_dir} | SMALL | sections.pop("storage", {}),
        "tables": {"enabled": False} | sections.pop("tables", {}),
    }
    loaded = config.load(None, {}, overrides | sections)
    return ServerProcess(loaded, RealMachine(loaded.s3))


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """A broker in this process."""
    started: list[ServerProcess] = []

    async def start(**sections: dict[str, Any]) -> ServerProcess:
        server = server_of(tmp_path / "data", **sections)
        await server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        await server.stop()


def ready(data_dir: Path) -> dict[str, Any]:
    return json.loads((data_dir / READY_FILE).read_text())


async def in_thread(work: Callable[[], Any]) -> Any:
    """Something that blocks, as a client of a broker in this process does."""
    executor = ThreadExecutor("client")
    try:
        return await executor.run(work)
    finally:
        executor.close()


# -- starting --------------------------------------------------------------------------------------------------------


async def test_it_announces_where_it_is(start: Start, tmp_path: Path) -> None:
    server = await start(server={"advertised_host": "example.org", "advertised_port": 1234})
    told = ready(tmp_path / "data")
    assert told["bootstrap"] == "example.org:1234"

    def brokers() -> Any:
        with Client(server.broker.listener.port) as client:
            return client.newest(ApiKey.METADATA, metadata.MetadataRequest(topics=())).brokers

    assert [(b.host, b.port) for b in await in_thread(brokers)] == [("example.org", 1234)]
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(told["http"] + "/healthz")).status_code == 200
        assert "streamlake_partitions" in (await http.get(told["http"] + "/metrics")).text
        assert (await http.get(told["http"] + "/subjects")).json() == []


async def test_kernels_that_are_missing_are_said(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "compiled", lambda: {"records": True, "avro": False, "flush": False})
    with structlog.testing.capture_logs() as logs:
        await start()
    assert [line["kernels"] for line in logs if line["event"] == "this is StreamLake"] == ["records"]
    (warned,) = (line for line in logs if line["event"].startswith("kernels are missing"))
    assert (warned["log_level"], warned["missing"]) == ("warning", "avro, flush")


def test_addresses_to_connect_to() -> None:
    assert [_reachable(host) for host in ("0.0.0.0", "::", "", "10.0.0.1")] == [
        "127.0.0.1",
        "::1",
        "127.0.0.1",
        "10.0.0.1",
    ]
    assert [_address(host, 9) for host in ("10.0.0.1", "::1", "a.b")] == ["10.0.0.1:9", "[::1]:9", "a.b:9"]


async def test_a_second_server_on_the_same_directory(start: Start, tmp_path: Path) -> None:
    await start()
    before = ready(tmp_path / "data")
    with pytest.raises(Unavailable, match=r"another server uses .*: stop it first, or give this one another directory"):
        await server_of(tmp_path / "data").start()
    assert ready(tmp_path / "data") == before, "the first one's word of where it is must not be taken away"
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(before["http"] + "/healthz")).status_code == 200


@pytest.mark.parametrize("key", ["port", "http_port"])
async def test_a_taken_port_is_told_before_anything_is_touched(tmp_path: Path, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(Unavailable, match="cannot listen on"):
            await server_of(tmp_path, server={key: taken.getsockname()[1]}).start()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lock"]


@pytest.mark.parametrize("where", ["file", "file/below"])
async def test_a_data_directory_that_cannot_be(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"cannot be used: .*give a --data-dir that can be written"):
        await server_of(tmp_path / where).start()


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"kafka": {"num.partition": "3"}}, "did you mean num.partitions?"),
        ({"kafka": {"num.partitions": "0"}}, "num.partitions"),
        ({"tables": {"enabled": True, "catalog": "/no/such/file.toml"}}, "/no/such/file.toml"),
    ],
)
async def test_a_start_that_fails_leaves_nothing_running(
    tmp_path: Path, sections: dict[str, Any], says: str, start: Start
) -> None:
    data_dir = tmp_path / "data"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Invalid) as failed:
        await server_of(data_dir, server={"port": port}, **sections).start()
    assert says in str(failed.value)
    assert not (data_dir / READY_FILE).exists()
    await start(server={"port": port})


# -- stopping --------------------------------------------------------------------------------------------------------


async def test_the_worker_is_let_finish(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = FakeWorkers()
    monkeypatch.setattr(asyncio, "create_subprocess_exec", workers.exec)
    server = await start(tables={"enabled": True})
    await server.broker.services.topics.create("t", 1, {"streamlake.table.enable": "true"})
    process, settings = await workers.next()
    assert settings.bootstrap_port == server.broker.listener.port
    assert settings.registry_url == ready(server._data_dir)["http"]
    assert (settings.default_catalog, settings.catalogs["sql"].kind) == ("sql", "sql")
    await server.stop()
    assert process.signals == [signal.SIGTERM]
    assert not (server._data_dir / READY_FILE).exists()


async def test_who_only_waits_does_not_hold_up_the_stop(start: Start) -> None:
    server = await start(server={"shutdown_timeout_s": 3600})
    port = server.broker.listener.port

    def wait() -> None:
        """A long poll, and a member whose rebalance waits for another that is silent."""
        with Client(port) as poller, Client(port) as silent, Client(port) as joiner:
            topic = poller.create_topic()
            asked = fetch.FetchRequest(
                max_wait_ms=300_000, min_bytes=1, topics=(fetch_topic(topic, fetch_partition()),)
            )
            silent.join_alone("group")
            refused = joiner.newest(ApiKey.JOIN_GROUP, join_request("group", ""))
            poller.post(ApiKey.FETCH, newest(ApiKey.FETCH), asked)
            joiner.post(ApiKey.JOIN_GROUP, newest(ApiKey.JOIN_GROUP), join_request("group", refused.member_id))
            waiting.set()
            assert poller.is_closed_by_server() and joiner.is_closed_by_server()

    waiting = threading.Event()
    client = asyncio.create_task(in_thread(wait))
    while not waiting.is_set():
        await asyncio.sleep(0.01)
    async with asyncio.timeout(DEADLINE_S):
        await server.stop()
        await client


async def test_a_broker_is_ready_until_it_stops(start: Start) -> None:
    server = await start()
    async with httpx.AsyncClient(base_url=server._http_url, trust_env=False) as http:
        assert [(await http.get(path)).status_code for path in ("/live", "/ready")] == [200, 200]
        assert (await http.get("/v1/cluster")).json()["brokers"][0]["partitions"] == 0
        refused = await http.post("/v1/brokers/0/drain")
        assert refused.status_code == 400 and "no other broker" in refused.text
    await server.stop()
    assert (server._why_not_live(), server._why_not_ready()) == (None, "starting, or stopping")


async def test_a_failure_that_cannot_be_survived_is_told(start: Start) -> None:
    server = await start()
    assert server._problems() == []
    server._fatal(OSError("the disk is gone"))
    assert server._why_not_live() == server._why_not_ready() == "stopping: the disk is gone"


async def test_of_several_failures_the_first_is_told(start: Start) -> None:
    server = await start()
    server._fatal(OSError("the disk is gone"))
    server._fatal(OSError("and that is not all"))
    assert server._problems() == ["stopping: the disk is gone"]
    assert str(await server.failed) == "the disk is gone"


async def test_one_part_that_does_not_stop_does_not_keep_the_others(start: Start, tmp_path: Path) -> None:
    server = await start()

    async def stuck() -> None:
        raise RuntimeError("a bug")

    server._undo.append(("something", stuck))
    await server.stop()
    await start()


# -- as a process ----------------------------------------------------------------------------------------------------


def everything(client: Client, topic: Topic, partitions: int) -> list[list[bytes]]:
    """The records of each partition, as bytes of whole batches."""
    asked = tuple(fetch_partition(index=index) for index in range(partitions))
    answer = client.newest(ApiKey.FETCH, fetch.FetchRequest(max_wait_ms=0, topics=(fetch_topic(topic, *asked),)))
    return [bytes(p.records or b"") for p in answer.responses[0].partitions]


def committed(client: Client, group: str) -> int:
    asked = offset_fetch.OffsetFetchRequest(groups=(offset_fetch.OffsetFetchRequestGroup(group, topics=None),))
    return client.newest(ApiKey.OFFSET_FETCH, asked).groups[0].topics[0].partitions[0].committed_offset


def commit(client: Client, group: str, topic: Topic, offset: int) -> None:
    partitions = (offset_commit.OffsetCommitRequestPartition(0, offset),)
    topics = (offset_commit.OffsetCommitRequestTopic(name=topic.name, partitions=partitions),)
    client.newest(ApiKey.OFFSET_COMMIT, offset_commit.OffsetCommitRequest(group, topics=topics))


async def test_what_was_acknowledged_survives_kill_9_and_ctrl_c(start: Start, tmp_path: Path) -> None:
    server = Server(tmp_path / "data", WITHOUT_TABLES).start()
    with Client(server.port) as client:
        topic = client.create_topic(partitions=2, retention_ms="-1")
        client.append(topic, *(batch([b"a"] * 10) for _ in range(20)))
        client.append(topic, batch([b"b"]), partition=1)
        commit(client, "group", topic, 7)
        before = everything(client, topic, 2)
    server.kill()
    server.start()
    with Client(server.port) as client:
        assert everything(client, topic, 2) == before
        assert committed(client, "group") == 7
        assert client.append(topic, batch([b"c"])) == [200]
        commit(client, "group", topic, 8)
        before = everything(client, topic, 2)
    assert server.stop() == 0
    assert not (server.data_dir / READY_FILE).exists()
    server = await start()

    def check() -> None:
        with Client(server.broker.listener.port) as client:
            assert everything(client, topic, 2) == before
            assert committed(client, "group") == 8

    await in_thread(check)


async def test_ctrl_c_under_load_answers_what_it_took_and_refuses_nothing(start: Start, tmp_path: Path) -> None:
    """A produce request that came in time is acknowledged, one that came too late is not answered: never an error."""
    server = Server(tmp_path / "data", WITHOUT_TABLES).start()
    version = newest(ApiKey.PRODUCE)
    acked = 0
    with Client(server.port) as client:
        topic = client.create_topic(retention_ms="-1")
        request = produce_request(topic, {0: batch([b"v"])})
        for number in range(50):
            client.post(ApiKey.PRODUCE, version, request, number)
        server.process.send_signal(signal.SIGINT)
        number = 50
        try:
            while True:
                (answer,) = client.answer(ApiKey.PRODUCE, version, acked).responses[0].partition_responses
                assert (answer.error_code, answer.base_offset) == (0, acked)
                acked += 1
                client.post(ApiKey.PRODUCE, version, request, number)
                number += 1
        except ConnectionError:
            pass
    assert server.process.wait(DEADLINE_S) == 0, server.log
    server = await start()
    found = server.broker.services.topics.get(topic.name)
    assert server.broker.services.logs.get(found.id, 0).high_watermark >= acked


def test_a_mistake_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", WITHOUT_TABLES).start()
    command = [sys.executable, "-m", "streamlake.cli.main", "server", "--data-dir", str(server.data_dir)]
    command += ["--port", "0", "--http-port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, env=server.environ)
    assert done.returncode == 1
    assert "another server uses" in done.stderr and "Traceback" not in done.stderr
    assert server.get("/healthz")["status"] == "ok"
    assert server.stop() == 0


def test_kill_9_leaves_no_worker_behind(tmp_path: Path) -> None:
    server = Server(tmp_path / "data").start()
    with Client(server.port) as client:
        client.create_topic(streamlake_table_enable="true")
    worker = server.wait_for_worker()
    assert is_running(worker)
    server.kill()
    wait_until(lambda: not is_running(worker))


def test_the_server_imports_nothing_that_only_tables_and_the_command_line_need() -> None:
    """pyiceberg and pyarrow alone are three seconds and 230 MB (research on the start)."""
    code = "import sys, streamlake.broker.process, streamlake.cli.main; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=DEADLINE_S
    )
    heavy = {"pyiceberg", "pyarrow", "obstore", "duckdb", "pandas", "numpy", "confluent_kafka", "kio"}
    assert heavy & set(loaded.stdout.split()) == set()

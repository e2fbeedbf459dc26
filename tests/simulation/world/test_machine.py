import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import structlog
from simulation.world import bucket, metadata, net
from simulation.world.bucket import SimBucket
from simulation.world.catalog import CatalogServer
from simulation.world.loop import SimLoop, Trace
from simulation.world.machine import MachineFaults, Outside, SimHost, SimMachine
from simulation.world.metadata import MetadataServer
from simulation.world.net import SimNet
from simulation.world.process import Process

from streamlake.broker.services import Services
from streamlake.config import Config
from streamlake.core.errors import Exists, Invalid, StreamLakeError
from streamlake.handlers.apis import HANDLERS
from streamlake.peers.kafka import KafkaPeer
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.create_topics import CreatableTopic, CreateTopicsRequest
from streamlake.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch
from streamlake.server.listener import Listener

TESTS = Path(__file__).parents[2]
MainOf = Callable[[Outside], Coroutine[Any, Any, Any]]


def in_world(main: MainOf, seed: int = 1, faults: MachineFaults | None = None) -> Any:
    loop = SimLoop(seed)
    server = MetadataServer(loop)
    outside = Outside(
        loop, SimNet(loop), server, {"lake": SimBucket(loop)}, CatalogServer(loop), faults or MachineFaults()
    )
    try:
        result = loop.run_until_complete(main(outside))
        assert not loop.failures
        return result
    finally:
        loop.close()
        server.close()


def test_a_store_is_on_the_disk_of_the_host_or_in_a_bucket() -> None:
    async def main(outside: Outside) -> None:
        hosts = [SimHost(name, outside) for name in ("a", "b")]
        seen: list[Any] = []

        async def life(machine: SimMachine) -> None:
            for url in ("file:///data", "s3://lake/prefix"):
                store = await machine.open_store(url)
                try:
                    await store.create("k", [machine.process.name.encode()])
                except Exists:
                    seen.append(f"{url} has that of {(await store.get('k')).decode()}")
            with pytest.raises(Invalid):
                await machine.open_store("s3://elsewhere")
            assert await (await machine.open_metadata("postgresql://any")).read(lambda c: 1) == 1
            assert machine.load_catalog().name == "lake"
            assert machine.executor("x") is machine.executor("x")
            machine.close()
            seen.append(machine.process.name)

        for host in hosts:
            process, machine = host.process("broker")
            process.start(life(machine))
            await asyncio.sleep(100)
        assert seen == ["a/broker-1", "s3://lake/prefix has that of a/broker-1", "b/broker-1"]

    in_world(main)


def on_disk(host: SimHost, path: str) -> bytes:
    file = host.disk.open(path)
    return file.pread(file.size(), 0)


def test_a_kill_keeps_what_was_written_and_frees_its_locks_only() -> None:
    async def main(outside: Outside) -> None:
        host = SimHost("a", outside)
        (first, one), (second, two) = host.process("broker"), host.process("worker")
        assert first.name != second.name
        mine, theirs = one.disk.open("/mine", create=True), two.disk.open("/theirs", create=True)
        assert mine.lock()
        assert theirs.lock()
        assert not two.disk.open("/mine").lock()
        mine.pwrite([b"x"], 0)
        first.kill()
        with pytest.raises(OSError, match="power"):
            mine.pread(1, 0)
        assert theirs.size() == 0
        assert on_disk(host, "/mine") == b"x"
        assert two.disk.open("/mine").lock()
        assert not host.disk.open("/theirs").lock()

    in_world(main)


def test_a_power_cut_ends_all_of_a_host_and_loses_what_was_not_synced() -> None:
    async def main(outside: Outside) -> tuple[bytes, ...]:
        host, other = SimHost("a", outside), SimHost("b", outside)
        process, machine = host.process("broker")
        _, elsewhere = other.process("broker")
        for disk in (machine.disk, elsewhere.disk):
            file = disk.open("/f", create=True)
            file.pwrite([b"old"], 0)
            file.sync()
            disk.sync_dir("/")
            file.pwrite([b"new"], 0)
        host.power_cut()
        host.power_on()
        assert not process.alive
        assert elsewhere.disk.open("/f").pread(3, 0) == b"new"
        _, after = host.process("broker")
        assert after.disk.open("/f").pread(3, 0) == on_disk(host, "/f")
        return on_disk(host, "/f")

    assert {in_world(main, seed) for seed in range(20)} == {b"old", b"new"}


def test_a_process_dies_between_two_disk_operations_of_one_function() -> None:
    lengths: set[int] = set()
    for n in range(1, 6):

        async def main(outside: Outside, n: int = n) -> None:
            host = SimHost("a", outside)
            process, machine = host.process("broker")
            after: list[int] = []

            def write() -> None:
                file = machine.disk.open("/f", create=True)
                for at in range(3):
                    file.pwrite([b"x"], at)

            async def life() -> None:
                await machine.executor("files").run(write)
                after.append(1)

            process.start(life())
            machine.kill_at_disk_operation(n)
            await asyncio.sleep(5)
            assert process.alive == (n == 5) == bool(after)
            lengths.add(len(on_disk(host, "/f")) if "f" in host.disk.listdir("/") else -1)

        in_world(main)
    assert lengths == {-1, 0, 1, 2, 3}


def test_a_sync_takes_time_and_may_fail() -> None:
    async def main(outside: Outside) -> list[str]:
        process, machine = SimHost("a", outside).process("broker")
        seen: list[str] = []

        async def life() -> None:
            for n in range(50):
                file = machine.disk.open(f"/{n}", create=True)
                try:
                    await machine.executor("files").run(file.sync)
                    seen.append("synced")
                except OSError as error:
                    seen.append(str(error.errno))

        process.start(life())
        await asyncio.sleep(100)
        return seen

    counted = Counter(in_world(main, faults=MachineFaults(sync_error=0.3)))
    assert set(counted) == {"synced", "5"}
    assert sum(counted.values()) == 50


def test_clocks_of_hosts_differ_and_run_at_nearly_the_same_rate() -> None:
    async def main(outside: Outside) -> None:
        clocks = [SimHost(name, outside).process("p")[0].clock for name in "abcdefgh"]
        before = [clock.boottime() for clock in clocks]
        await asyncio.sleep(1000)
        passed = [clock.boottime() - then for clock, then in zip(clocks, before, strict=True)]
        assert 1000 <= min(passed) < max(passed) <= 1020.1
        assert max(passed) / min(passed) > 1.001

    in_world(main, faults=MachineFaults(clock_rates=0.02))


# -- the services of a broker, unchanged -----------------------------------------------------------------------------------

KINDS = {
    "s3": {"url": "s3://lake/data", "wal": "object", "metadata_url": "postgresql://world/db", "data_dir": "/data"},
    "disk": {"metadata_url": "postgresql://world/db", "data_dir": "/data"},
}


async def serve(process: Process, machine: SimMachine, network: SimNet, kind: str) -> None:
    config = Config.model_validate({"server": {"node_id": 1}, "storage": KINDS[kind]})
    services = Services(config, machine, lambda error: process.exit(1))
    try:
        await services.start("a", 9092)
    except StreamLakeError:
        process.exit(1)
        return
    listener = Listener(network.bind("a", 9092), 100, 1 << 20)  # type: ignore[arg-type]
    await listener.start(services.context(), HANDLERS, services.connection_memory)


async def produce(count: int, told: Counter[str]) -> None:
    peer = KafkaPeer("a", 9092, "client", 10)
    topic = CreatableTopic(name="t", num_partitions=3, replication_factor=1)
    while told["acked"] < count:
        records = encode_batch([Record(n, 1, b"k", b"v" * 100, ()) for n in range(5)])
        part = PartitionProduceData(index=told["acked"] % 3, records=records)
        request = ProduceRequest(
            acks=-1, timeout_ms=5000, topic_data=(TopicProduceData(name="t", partition_data=(part,)),)
        )
        try:
            await peer.call(ApiKey.CREATE_TOPICS, CreateTopicsRequest(topics=(topic,), timeout_ms=5000), 5)
            answer = await peer.call(ApiKey.PRODUCE, request, 9)
        except StreamLakeError as error:
            told[type(error).__name__] += 1
            await asyncio.sleep(0.5)
            continue
        code = answer.responses[0].partition_responses[0].error_code
        told["acked" if code == 0 else f"code {code}"] += 1


def life(seed: int, kind: str, keep: bool = False) -> tuple[str, Counter[str], Trace]:
    """A broker that is killed, loses its power and is started again, while a client produces."""
    structlog.configure(
        processors=[structlog.processors.KeyValueRenderer()], logger_factory=structlog.ReturnLoggerFactory()
    )
    loop = SimLoop(seed, trace=Trace(keep))
    server = MetadataServer(loop, metadata.MILD)
    network = SimNet(loop, net.MILD)
    outside = Outside(loop, network, server, {"lake": SimBucket(loop, faults=bucket.MILD)})
    host, random, told = SimHost("a", outside), loop.derived("chaos"), Counter()

    async def main() -> None:
        client = Process(loop, "client", "c")
        client.start(produce(40, told))
        for turn in range(1000):
            process, machine = host.process("broker")
            process.start(serve(process, machine, network, kind))
            await asyncio.sleep(random.uniform(2, 8))
            if told["acked"] >= 40:
                return
            if turn % 2:
                host.power_cut()
                host.power_on()
            elif process.alive:
                process.kill()

    try:
        loop.run_until_complete(main())
        assert not loop.failures
    finally:
        loop.close()
        server.close()
        structlog.reset_defaults()
    return loop.trace.digest, told, loop.trace


@pytest.mark.parametrize("kind", list(KINDS))
def test_services_run_on_it_and_a_seed_is_a_life(kind: str) -> None:
    lives = [life(seed, kind) for seed in (1, 1, 2)]
    assert lives[0][:2] == lives[1][:2]
    assert lives[0][0] != lives[2][0]
    assert life(1, kind, keep=True)[2].lines == life(1, kind, keep=True)[2].lines


def test_a_life_is_the_same_in_another_python_process() -> None:
    script = "from simulation.world.test_machine import life; print(life(5, 's3')[0], life(5, 'disk')[0])"
    environment = {**os.environ, "PYTHONHASHSEED": "4321", "PYTHONPATH": str(TESTS)}  # ours here is random, or another
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
    assert done.stdout.decode().split() == [life(5, "s3")[0], life(5, "disk")[0]]

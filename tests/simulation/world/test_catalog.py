import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from contracts.catalog_contract import CatalogContract
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.schema import Schema
from pyiceberg.table.update import AssertTableUUID, SetPropertiesUpdate
from pyiceberg.types import LongType, NestedField
from simulation.world.catalog import CatalogFaults, CatalogServer
from simulation.world.executor import SimExecutor
from simulation.world.loop import SimLoop
from simulation.world.process import Process

SCHEMA = Schema(NestedField(1, "id", LongType()))


class TestCatalogOfTheWorld(CatalogContract):
    @pytest.fixture
    def catalog(self) -> Any:
        return CatalogServer(SimLoop(1)).client()


def in_world(
    main: Callable[[SimLoop, CatalogServer], Coroutine[Any, Any, Any]],
    faults: CatalogFaults = CatalogFaults(),  # noqa: B008 - frozen
    seed: int = 1,
) -> Any:
    loop = SimLoop(seed)
    try:
        result = loop.run_until_complete(main(loop, CatalogServer(loop, faults)))
        assert not loop.failures
        return result
    finally:
        loop.close()


def made(server: CatalogServer) -> Any:
    server.catalog.create_namespace("n")
    with server.seeded():
        return server.catalog.create_table("n.t", SCHEMA)


def change(table: Any, value: str) -> tuple[Any, Any, Any]:
    requirement = AssertTableUUID(uuid=table.metadata.table_uuid)
    return table, (requirement,), (SetPropertiesUpdate(updates={"value": value}),)


def value(server: CatalogServer) -> Any:
    return server.catalog.load_table("n.t").properties.get("value")


@pytest.mark.parametrize(
    ("fault", "error", "landed"),
    [
        ("lost", ConnectionError, False),
        ("error_after", TimeoutError, True),
        ("conflict_after", CommitFailedException, True),
        ("late", TimeoutError, False),
    ],
)
def test_each_fault_of_a_commit(fault: str, error: type[Exception], landed: bool) -> None:
    async def main(loop: SimLoop, server: CatalogServer) -> None:
        table = made(server)
        process, told = Process(loop, "worker"), []

        async def commit() -> None:
            executor = SimExecutor("table", process)
            try:
                await executor.run(server.client().commit_table, *change(table, "1"))
            except Exception as raised:
                told.append(type(raised))

        process.start(commit())
        await asyncio.sleep(5)
        assert told == [error]
        assert (value(server) == "1") == landed
        assert [(event.who, event.landed) for event in server.history] == (
            [] if fault == "late" else [("worker", landed)]
        )
        process.kill()
        await asyncio.sleep(600)
        if fault == "late":
            assert value(server) == "1", "it landed after its worker had died"
            assert [(event.who, event.fate, event.landed) for event in server.history] == [("worker", "late", True)]

    in_world(main, CatalogFaults(late_s=600, **{fault: 1.0}))


def test_a_commit_that_comes_too_late_is_refused() -> None:
    async def main(loop: SimLoop, server: CatalogServer) -> None:
        table = made(server)
        old = Process(loop, "old")
        old.start(SimExecutor("table", old).run(_quietly, server.client().commit_table, *change(table, "old")))
        await asyncio.sleep(0.5)
        with server.seeded():
            server.catalog.drop_table("n.t")
            server.catalog.create_table("n.t", SCHEMA)
        await asyncio.sleep(100)
        assert value(server) is None
        assert [(event.who, event.landed) for event in server.history] == [("old", False)]

    in_world(main, CatalogFaults(late=1.0))


def _quietly(fn: Callable[..., Any], *args: Any) -> None:
    try:
        fn(*args)
    except Exception:
        pass


def test_files_fail_before_or_after_they_are_stored() -> None:
    async def main(loop: SimLoop, server: CatalogServer) -> None:
        table, process = made(server), Process(loop, "worker")
        outcomes: Counter[tuple[bool, bool]] = Counter()
        server.warehouse.faults = CatalogFaults(file_error=0.5)

        def write(location: str) -> None:
            try:
                with table.io.new_output(location).create() as sink:
                    sink.write(b"whole")
                told = True
            except OSError:
                told = False
            assert server.files.get(location, b"whole") == b"whole"
            outcomes[told, location in server.files] += 1

        async def life() -> None:
            executor = SimExecutor("table", process)
            for n in range(100):
                await executor.run(write, f"f{n}")

        process.start(life())
        await asyncio.sleep(1000)
        assert set(outcomes) == {(True, True), (False, True), (False, False)}
        assert table.io.new_input("f0").location == "f0"

    in_world(main)


def test_a_file_that_broke_off_is_not_stored() -> None:
    async def main(loop: SimLoop, server: CatalogServer) -> None:
        output = made(server).io.new_output("f")
        with pytest.raises(ZeroDivisionError), output.create() as sink:
            sink.write(b"half")
            raise ZeroDivisionError
        assert "f" not in server.files

    in_world(main)


def test_a_read_only_catalog_takes_no_commit_until_it_is_healed() -> None:
    async def main(loop: SimLoop, server: CatalogServer) -> None:
        table, process, told = made(server), Process(loop, "worker"), []
        server.read_only(60)

        def attempt() -> None:
            client = server.client()
            client.load_table("n.t")
            with pytest.raises(ConnectionError):
                client.commit_table(*change(table, "1"))
            server.heal()
            client.commit_table(*change(table, "1"))
            told.append(True)

        process.start(SimExecutor("table", process).run(attempt))
        await asyncio.sleep(30)
        assert told and [event.landed for event in server.history] == [False, True]

    in_world(main)


def test_an_outage_is_of_all() -> None:
    async def main(loop: SimLoop, server: CatalogServer) -> None:
        table, process, told = made(server), Process(loop, "worker"), []
        server.outage(60)

        def attempt() -> None:
            client = server.client()
            for call in (
                lambda: client.load_table("n.t"),
                lambda: client.namespace_exists("n"),
                lambda: client.commit_table(*change(table, "1")),
                lambda: table.io.new_input(table.metadata_location).open(),
                lambda: table.io.delete(table.metadata_location),
            ):
                with pytest.raises(OSError):
                    call()
            told.append(True)

        process.start(SimExecutor("table", process).run(attempt))
        await asyncio.sleep(30)
        assert told
        assert table.metadata_location in server.files
        await asyncio.sleep(60)
        process.start(SimExecutor("table", process).run(server.client().commit_table, *change(table, "1")))
        await asyncio.sleep(5)
        assert value(server) == "1"

    in_world(main)


def test_slow_calls_keep_their_thread_busy() -> None:
    async def main(loop: SimLoop, server: CatalogServer) -> None:
        made(server)
        process = Process(loop, "worker")
        process.start(SimExecutor("table", process).run(server.client().load_table, "n.t"))
        await asyncio.sleep(0)
        assert process.tasks.pending() != []
        await asyncio.sleep(5)
        assert process.tasks.pending() == []

    in_world(main)


def test_one_seed_is_one_lake() -> None:
    def life(seed: int) -> Any:
        async def main(loop: SimLoop, server: CatalogServer) -> Any:
            made(server)
            process = Process(loop, "worker")

            def work(n: int) -> None:
                try:
                    client = server.client()
                    client.commit_table(*change(client.load_table("n.t"), str(n)))
                except Exception:
                    pass

            async def run() -> None:
                executor = SimExecutor("table", process)
                for n in range(10):
                    await executor.run(work, n)

            process.start(run())
            await asyncio.sleep(500)
            return sorted(server.files), server.history, loop.trace.digest

        return in_world(main, CatalogFaults(lost=0.1, error_after=0.2, late=0.2, read_error=0.1), seed)

    assert life(1) == life(1)
    assert life(1) != life(2)

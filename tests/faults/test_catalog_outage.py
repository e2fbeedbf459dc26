"""The catalog is away: its tables say so and wait, the topics do not notice, and when it is back nothing is missing."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import lake, rest_lake
from support.log_check import Ledger
from support.seaweedfs import SeaweedFS
from support.server import Server, is_running
from support.wait import wait_until

NewServer = Callable[..., Server]


@pytest.fixture
def lakehouse(tmp_path: Path) -> Iterator[SeaweedFS]:
    """A REST catalog with its S3 that may be stopped."""
    with SeaweedFS(tmp_path / "s3") as started:
        yield started


@pytest.mark.slow
def test_a_rest_catalog_that_goes_away_and_comes_back(
    lakehouse: SeaweedFS, tmp_path: Path, new_server: NewServer
) -> None:
    server = new_server(rest_lake.server_config(lakehouse, tmp_path), environ=rest_lake.environ(lakehouse)).start()
    lake.create_topic(server, "orders", 2, convert_value_type="string")
    ledger = Ledger(server, "orders", 2)
    ledger.produce(500)
    ledger.settle()
    server.wait_for_table("orders", 500)

    lakehouse.stop()
    ledger.produce(500)
    ledger.settle()
    assert "connect" in lake.wait_for_state(server, "orders", "retrying").lower()
    assert server.get("/healthz")["status"] == "ok"
    os.kill(server.worker_pid(), signal.SIGKILL)  # the next worker finds no catalog at all
    ledger.produce(500)
    ledger.settle()

    lakehouse.start()
    table = server.wait_for_table("orders", 1500)
    assert (table["state"], table["message"], table["lag"]) == ("running", "", 0)
    rows = rest_lake.catalog(lakehouse).load_table("default.orders").scan().to_arrow().to_pylist()
    log = ledger.check(server)
    assert len(rows) == len(log)
    assert {(r["_kafka"]["partition"], r["_kafka"]["offset"]): r["value"].encode() for r in rows} == log
    assert server.stop() == 0


@pytest.mark.slow
def test_a_catalog_that_is_away_when_the_server_starts(new_server: NewServer, tmp_path: Path) -> None:
    catalog = tmp_path / "lake.toml"
    catalog.write_text('kind = "rest"\nname = "lake"\n[properties]\nuri = "http://127.0.0.1:1"\nwarehouse = "w"\n')
    server = new_server(f'[tables]\ncatalog = "{catalog}"\n').start()
    lake.create_topic(server, "orders", convert_value_type="string")
    ledger = Ledger(server, "orders")
    ledger.produce(100)
    ledger.settle()
    message = lake.wait_for_state(server, "orders", "retrying")
    assert "catalog" in message and "127.0.0.1" in message
    worker = server.worker_pid()
    server.kill()  # it must not be outlived by a worker that waits for a catalog
    wait_until(lambda: not is_running(worker), lambda: "an orphan")
    server.config.write_text("")  # the embedded default
    server.start()
    server.wait_for_table("orders", 100)
    assert server.stop() == 0


@pytest.mark.slow
def test_a_warehouse_that_cannot_be_written(new_server: NewServer, tmp_path: Path) -> None:
    """A file where the folder of the table should be: permissions do not stop root."""
    server = new_server().start()
    lake.create_topic(server, "orders", convert_value_type="string")
    lake.create_topic(server, "healthy", convert_value_type="string")
    ledger, healthy = Ledger(server, "orders"), Ledger(server, "healthy")
    ledger.produce(100)
    ledger.settle()
    server.wait_for_table("orders", 100)
    folder = server.data_dir / "warehouse" / "default" / "orders"
    folder.rename(tmp_path / "aside")
    folder.write_text("in the way")
    ledger.produce(100)
    healthy.produce(100)
    ledger.settle()
    healthy.settle()
    server.wait_for_table("healthy", 100)
    assert "orders" in lake.wait_for_state(server, "orders", "retrying")
    folder.unlink()
    (tmp_path / "aside").rename(folder)
    server.wait_for_table("orders", 200)
    assert {offset for (offset,) in lake.query(server, 'SELECT _kafka."offset" FROM orders')} == set(range(200))
    assert server.stop() == 0


@pytest.mark.slow
def test_a_catalog_that_lost_its_tables_never_makes_them_anew(new_server: NewServer, tmp_path: Path) -> None:
    """An empty catalog would be filled from what is left of the log: a table without its past, and no sign of it."""
    server = new_server().start()
    lake.create_topic(server, "orders", convert_value_type="string")
    ledger = Ledger(server, "orders")
    for rows in (100, 200, 300):  # several commits, so that retention was told that it may pass some
        ledger.produce(100)
        ledger.settle()
        server.wait_for_table("orders", rows)
    assert server.stop() == 0
    lost = sorted(server.data_dir.glob("catalog.db*"))
    for file in lost:
        file.rename(tmp_path / file.name)
    server.start()
    message = lake.wait_for_state(server, "orders", "failed")
    assert "default.orders" in message
    ledger.produce(100)
    ledger.settle()
    assert server.stop() == 0
    for left in server.data_dir.glob("catalog.db*"):
        left.unlink()
    for file in lost:
        (tmp_path / file.name).rename(file)
    server.start()
    server.wait_for_table("orders", 400)
    assert {offset for (offset,) in lake.query(server, 'SELECT _kafka."offset" FROM orders')} == set(range(400))
    assert server.stop() == 0

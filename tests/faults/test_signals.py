"""Processes that are stopped, killed and paused under load: nothing acknowledged is lost, no table row is doubled."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support import lake
from support.log_check import Ledger
from support.server import Server, is_running
from support.wait import DEADLINE_S, wait_until

from streamlake.cluster.store.membership import LEASE_S

NewServer = Callable[..., Server]
CONFIG = """
[storage]
wal_segment_bytes = 1048576
wal_capacity_bytes = 16777216
upload_bytes = 1048576
upload_interval_s = 0.5
"""


@contextmanager
def load(ledger: Ledger) -> Iterator[None]:
    """Produces without pause; at the end everything gets its answer."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            ledger.produce(100, b"x" * 100)
            ledger.flush(0.05)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    ledger.settle()


def more(ledger: Ledger, records: int = 1000) -> None:
    """Until so many more are acknowledged."""
    target = len(ledger.acked) + records
    wait_until(lambda: len(ledger.acked) >= target, lambda: f"{len(ledger.acked)} of {target} acknowledged")


def wait_for_end(pid: int) -> None:
    wait_until(lambda: not is_running(pid), lambda: f"process {pid} lives on")


def check_table(server: Server, ledger: Ledger) -> None:
    """The table is the log, row for record."""
    log = ledger.check(server)
    server.wait_for_table(ledger.topic, len(log))
    rows = lake.query(server, f'SELECT _kafka.partition, _kafka."offset", value FROM "{ledger.topic}"')
    assert len(rows) == len(log)
    assert {(p, o): value.encode() for p, o, value in rows} == log


@pytest.fixture
def running(new_server: NewServer) -> tuple[Server, Ledger]:
    server = new_server(CONFIG).start()
    lake.create_topic(server, "t", 2, convert_value_type="string")
    return server, Ledger(server, "t", 2, **{"enable.idempotence": True, "message.timeout.ms": 0})


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_polite_stop_under_load(running: tuple[Server, Ledger], number: signal.Signals) -> None:
    server, ledger = running
    with load(ledger):
        more(ledger)
        worker = server.worker_pid()
        server.process.send_signal(number)
        assert server.process.wait(timeout=DEADLINE_S) == 0, server.log[-3000:]
        if worker is not None:
            wait_for_end(worker)
        server.start()
        more(ledger)
    check_table(server, ledger)
    assert "Traceback" not in server.log
    assert server.stop() == 0


def test_many_signals_are_one_stop(new_server: NewServer) -> None:
    server = new_server(CONFIG).start()
    for _ in range(3):
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGINT)
    assert server.process.wait(timeout=DEADLINE_S) == 0
    assert "Traceback" not in server.log


@pytest.mark.slow
def test_a_worker_that_is_killed_and_paused(running: tuple[Server, Ledger]) -> None:
    server, ledger = running
    with load(ledger):
        more(ledger)
        lake.wait_for_state(server, "t", "running")
        for end in (signal.SIGCONT, signal.SIGKILL):
            worker = server.worker_pid()
            os.kill(worker, signal.SIGSTOP)
            more(ledger, 5000)  # the topic does not notice
            os.kill(worker, end)
            more(ledger)
    check_table(server, ledger)
    assert server.stop() == 0


@pytest.mark.slow
def test_a_paused_worker_whose_server_was_replaced_is_a_zombie_and_adds_nothing(
    running: tuple[Server, Ledger],
) -> None:
    """It wakes in the middle of what it did, with a successor that has committed what it was about to."""
    server, ledger = running
    with load(ledger):
        more(ledger)
        lake.wait_for_state(server, "t", "running")
        zombie = server.worker_pid()
        os.kill(zombie, signal.SIGSTOP)
        server.kill()
        server.start()
        more(ledger)
        lake.wait_for_state(server, "t", "running")
        os.kill(zombie, signal.SIGCONT)
        wait_for_end(zombie)
        more(ledger)
    check_table(server, ledger)
    assert server.stop() == 0


@pytest.mark.slow
def test_a_server_that_is_paused_for_longer_than_its_lease(running: tuple[Server, Ledger]) -> None:
    server, ledger = running
    with load(ledger):
        more(ledger)
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(LEASE_S + 1)  # nobody took it over
        server.process.send_signal(signal.SIGCONT)
        more(ledger)
    check_table(server, ledger)
    assert server.stop() == 0

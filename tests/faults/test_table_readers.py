"""Readers make a table commit all the time, and its worker is killed: every record is a row once all the same."""

import os
import signal
import threading
from collections.abc import Callable

import pytest
from pyiceberg.catalog.rest import RestCatalog
from support.lake import create_topic, produce
from support.server import Server
from support.wait import wait_until

KILLS = 2
BATCH = 50


@pytest.mark.slow
def test_exactly_once_under_readers_and_kills(new_server: Callable[..., Server]) -> None:
    server = new_server().start()
    topic = create_topic(server, "read", 2, convert_value_type="string", commit_interval_ms="600000")
    produce(server, topic, [b"first"])
    server.wait_for_table(topic, 1)
    done, seen, problems = threading.Event(), [], []

    def read() -> None:
        rest = RestCatalog("rest", uri=f"{server.http}/iceberg")
        while not done.is_set():
            try:
                table = rest.load_table(f"default.{topic}")
            except Exception as error:  # the worker is away: the server says so
                problems.append(type(error).__name__)
                continue
            seen.append(int(table.current_snapshot().summary["total-records"]))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    produced = 1
    for _ in range(KILLS):
        answered = len(seen)
        while len(seen) < answered + 5:
            produce(server, topic, [b"%d" % (produced + n) for n in range(BATCH)], produced % 2)
            produced += BATCH
        os.kill(server.wait_for_worker(), signal.SIGKILL)
    wait_until(lambda: seen[-1] == produced, lambda: f"{seen[-1]} rows of {produced}\n{server.log[-3000:]}")
    done.set()
    for reader in readers:
        reader.join()
    assert set(problems) <= {"ServiceUnavailableError", "ServerError", "ConnectionError"}, set(problems)
    rows = RestCatalog("rest", uri=f"{server.http}/iceberg").load_table(f"default.{topic}").scan().to_arrow()
    places = [(row["partition"], row["offset"]) for row in rows["_kafka"].to_pylist()]
    assert len(places) == len(set(places)) == produced
    assert server.stop() == 0

"""Spark maintains the table of a running topic through the server's catalog; no row is lost, and none is there twice."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from engines.by_spark import jars, session
from engines.engine import NAMESPACE, Lake
from support.lake import create_topic, load_table, produce
from support.maven import Missing
from support.wait import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

TOPIC = "maintained"
PARTITIONS = 2
BATCH = 20
CALLS = (
    f"rewrite_data_files(table => '{NAMESPACE}.{TOPIC}', options => map('min-input-files', '2'))",
    f"rewrite_manifests(table => '{NAMESPACE}.{TOPIC}')",
    f"expire_snapshots(table => '{NAMESPACE}.{TOPIC}', older_than => now(), retain_last => 1)",
)
# Our commits merge manifests, too: whoever comes second is told so, and nothing happened.
BEATEN = ("could not be found in the latest snapshot", "CommitFailedException", "Cannot commit")


@pytest.fixture(scope="session")
def spark(request: pytest.FixtureRequest) -> Any:
    try:
        jars()
    except Missing as missing:
        pytest.skip(str(missing))
    return session(request.getfixturevalue("lake"))


class Load:
    """Records into all partitions, in turns, until it is told to stop; `sent` is what was acknowledged."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.sent = 0
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            for partition in range(PARTITIONS):
                produce(self.lake.server, TOPIC, [b"%d" % n for n in range(BATCH)], partition)
            self.sent += BATCH * PARTITIONS

    @contextmanager
    def running(self) -> Iterator["Load"]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield self
        finally:
            self.done.set()
            thread.join()


def test_maintenance_beside_a_running_topic(spark: Any, lake: Lake) -> None:
    create_topic(lake.server, TOPIC, PARTITIONS, convert_value_type="string", commit_interval_ms="200")
    with Load(lake).running() as load:
        for _ in range(2):
            for call in CALLS:
                before = load.sent
                wait_until(lambda: load.sent >= before + 10 * BATCH * PARTITIONS)  # noqa: B023
                wait_until(lambda: succeeds(spark, call))  # noqa: B023
                check(spark)
    report = lake.server.wait_for_table(TOPIC, load.sent)
    assert (report["state"], report["maintenance"]) == ("running", "")
    assert check(spark) == load.sent
    places = load_table(lake.server, TOPIC).scan(selected_fields=("_kafka.partition", "_kafka.offset")).to_arrow()
    found = {(place["partition"], place["offset"]) for place in places["_kafka"].to_pylist()}
    assert len(places) == len(found) == load.sent


def succeeds(spark: Any, call: str) -> bool:
    try:
        spark.sql(f"CALL rest.system.{call}").collect()
    except Exception as error:
        assert any(words in str(error) for words in BEATEN), error
        return False
    return True


def check(spark: Any) -> int:
    """The rows of each partition are those of its first offsets, once each; how many rows there are."""
    rows = spark.sql(
        f"SELECT _kafka.partition, count(*), count(DISTINCT _kafka.offset), max(_kafka.offset) + 1 "
        f"FROM rest.{NAMESPACE}.{TOPIC} GROUP BY 1"
    ).collect()
    for partition, count, distinct, end in rows:
        assert count == distinct == end, f"partition {partition}: {count} rows, {distinct} offsets, up to {end}"
    return sum(int(row[1]) for row in rows)

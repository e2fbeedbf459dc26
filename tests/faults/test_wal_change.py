"""The WAL of a broker is changed, its directory lost, its node taken over, each time after a kill -9: nothing is lost."""

from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from support.server import Server
from support.wait import DEADLINE_S, wait_until

RECORDS = 300
CONFIG = """
[server]
node_id = {node}
[storage]
url = "file://{root}/objects"
metadata_url = "sqlite:///{root}/metadata.db"
wal = "{wal}"
wal_segment_bytes = 65536
wal_capacity_bytes = 1048576
upload_interval_s = 3600
[tables]
enabled = false
"""


class Lake:
    """An object store and metadata that outlive servers, each of which has a directory of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.produced: list[str] = []
        self.lives = 0

    def server(self, wal: str, node: int = 0) -> Server:
        self.lives += 1
        config = CONFIG.format(root=self.root, wal=wal.format(root=self.root), node=node)
        return Server(self.root / f"life{self.lives}", config)

    def produce(self, server: Server) -> None:
        producer = Producer({"bootstrap.servers": server.bootstrap, "enable.idempotence": True})
        values = [f"{self.lives}-{n}" for n in range(RECORDS)]
        for value in values:
            producer.produce("t", value, partition=0)
        assert producer.flush(DEADLINE_S) == 0
        self.produced += values

    def check(self, server: Server) -> None:
        consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": "g", "enable.auto.commit": False})
        consumer.assign([TopicPartition("t", 0, 0)])
        found = []
        while len(found) < len(self.produced):
            message = consumer.poll(DEADLINE_S)
            assert message is not None, f"{len(found)} of {len(self.produced)} records"
            assert message.error() is None and message.offset() == len(found)
            found.append(message.value().decode())
        assert consumer.get_watermark_offsets(TopicPartition("t", 0), 20) == (0, len(found))
        consumer.close()
        assert found == self.produced


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


@pytest.mark.slow
def test_every_change_keeps_every_record(lake: Lake) -> None:
    wals = [
        "file://{root}/one",
        "file://{root}/one",
        "object",
        "object",
        "file://{root}/two",
        "object+file://{root}/elsewhere",
        "object",
        "file://{root}/one",
    ]
    for wal in wals:
        server = lake.server(wal).start()
        try:
            lake.produce(server)
            lake.check(server)
        finally:
            server.kill()
    server = lake.server("object").start()
    lake.check(server)
    assert server.stop() == 0, server.log
    assert [path.name for path in (lake.root / "one").iterdir()] == ["lock"], "a WAL that was left is emptied"


@pytest.mark.slow
def test_another_node_takes_over_what_a_dead_one_left(lake: Lake) -> None:
    first = lake.server("object", node=0).start()
    lake.produce(first)
    first.kill()
    second = lake.server("object", node=1).start()
    try:
        lake.check(second)
        lake.produce(second)
    finally:
        second.kill()
    third = lake.server("file://{root}/third", node=0).start()
    lake.check(third)
    assert third.stop() == 0, third.log


@pytest.mark.slow
def test_a_file_wal_of_another_node_waits_for_that_node(lake: Lake) -> None:
    """Only that node can read it; what was uploaded by a clean stop others may have."""
    first = lake.server("file://{root}/own", node=0).start()
    lake.produce(first)
    first.kill()
    second = lake.server("object", node=1).start()
    wait_until(lambda: "partitions wait for their brokers" in second.log)
    assert second.stop() == 0, second.log
    again = lake.server("file://{root}/own", node=0).start()
    lake.check(again)
    lake.produce(again)
    assert again.stop() == 0, again.log
    second = lake.server("object", node=1).start()
    lake.check(second)
    assert second.stop() == 0, second.log


@pytest.mark.slow
def test_a_file_wal_that_is_gone_is_an_error_not_an_empty_log(lake: Lake) -> None:
    first = lake.server("file://{root}/own").start()
    lake.produce(first)
    first.kill()
    (lake.root / "own").rename(lake.root / "moved")
    with pytest.raises(RuntimeError, match="bring it back"):
        lake.server("file://{root}/own").start()
    with pytest.raises(RuntimeError, match="bring it back"):
        lake.server("object").start()
    (lake.root / "moved").rename(lake.root / "own")
    server = lake.server("object").start()
    lake.check(server)
    server.stop()

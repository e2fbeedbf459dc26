"""Storage on S3 as a whole, and S3 that goes away: the WAL carries on, and everything is there when it is back."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import islice

import aiokafka
import kafka
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from support import lake
from support.fault_proxy import FaultProxy
from support.log_check import Ledger, read_log
from support.raw_kafka import RawClient, batch
from support.seaweedfs import SeaweedFS
from support.server import Server
from support.wait import DEADLINE_S, wait_until

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, fetch

STORAGE = """
[storage]
url = "s3://{bucket}/lake"
wal_segment_bytes = 1048576
wal_capacity_bytes = {wal_bytes}
upload_bytes = 1048576
upload_interval_s = 0.5
gc_interval_s = 1.0
gc_grace_s = 1.0
[s3]
endpoint = "{endpoint}"
region = "us-east-1"
access_key = "{access_key}"
secret_key = "{secret_key}"
allow_http = true
[memory]
log_cache_bytes = 8388608
block_cache_bytes = 1048576
[server]
shutdown_timeout_s = 2.0
[tables]
enabled = false
"""
NewServer = Callable[..., Server]
FAULTS_ALL_THE_TIME = {
    "slow": 0.1, "reset_before": 0.05, "reset_within": 0.05, "reset_after": 0.05, "503": 0.05, "applied_500": 0.05,
    "cut": 0.05,
}  # fmt: skip


def config(s3: SeaweedFS, wal_bytes: int = 16 << 20, endpoint: str = "") -> str:
    return STORAGE.format(
        bucket=s3.bucket(),
        wal_bytes=wal_bytes,
        endpoint=endpoint or s3.s3_endpoint,
        access_key=s3.access_key,
        secret_key=s3.secret_key,
    )


@pytest.mark.slow
def test_storage_on_s3_survives_restart_and_kill_9(seaweedfs: SeaweedFS, new_server: NewServer) -> None:
    server = new_server(config(seaweedfs)).start()
    lake.create_topic(server, "t", 3)
    ledger = Ledger(server, "t", 3, **{"enable.idempotence": True})
    for end in (server.kill, server.stop):
        ledger.produce(2000, b"x" * 1000)
        ledger.settle()
        end()
        server.start()
        assert len(ledger.check(server)) == len(ledger.acked)
    assert server.stop() == 0
    assert not list((server.data_dir / "objects").glob("**/*")), "objects lie in the bucket, not on the local disk"


@pytest.mark.slow
def test_a_store_whose_answers_go_wrong_loses_and_doubles_nothing(seaweedfs: SeaweedFS, new_server: NewServer) -> None:
    with FaultProxy(seaweedfs.s3_endpoint, "") as proxy:
        proxy.random(1, FAULTS_ALL_THE_TIME)
        server = new_server(config(seaweedfs, endpoint=proxy.endpoint)).start()
        lake.create_topic(server, "t", 3)
        ledger = Ledger(server, "t", 3, **{"enable.idempotence": True})
        for _ in range(3):
            ledger.produce(5000, b"x" * 1000)
            ledger.settle()
            server.kill()
            proxy.plan("", "", "503", times=20)
            server.start()
            assert len(ledger.check(server)) == len(ledger.acked)
        assert {operation for operation, _ in proxy.faults} >= {"put", "get_range"}, proxy.requests
        proxy.heal()
        assert server.stop() == 0


@pytest.fixture
def own_s3(tmp_path) -> SeaweedFS:
    """One that may be stopped."""
    with SeaweedFS(tmp_path / "s3") as started:
        yield started


@pytest.mark.slow
def test_an_outage_of_the_object_store_is_not_one_of_the_log(own_s3: SeaweedFS, new_server: NewServer) -> None:
    server = new_server(config(own_s3)).start()
    lake.create_topic(server, "t")
    ledger = Ledger(server, "t")
    ledger.produce(1000, b"x" * 1000)
    ledger.settle()
    own_s3.stop()

    ledger.produce(2000, b"y" * 1000)
    ledger.settle()
    assert len(ledger.check(server)) == 3000, "fetch serves what is in memory"
    assert server.get("/healthz")["status"] == "ok"

    server.kill()
    server.start()  # what is not uploaded is replayed; nothing of it needs the store
    ledger.produce(100)
    ledger.settle()

    own_s3.start()
    assert len(ledger.check(server)) == 3100
    assert server.stop() == 0
    server.start()
    assert len(ledger.check(server)) == 3100


def read_with_confluent(port: int, count: int) -> int:
    consumer = Consumer({"bootstrap.servers": f"127.0.0.1:{port}", "group.id": "g"})
    consumer.assign([TopicPartition("t", 0, 0)])
    read = 0
    while read < count:
        message = consumer.poll(DEADLINE_S)
        assert message is not None and message.error() is None, message and message.error()
        read += 1
    consumer.close()
    return read


def read_with_kafka_python(port: int, count: int) -> int:
    consumer = kafka.KafkaConsumer(bootstrap_servers=f"127.0.0.1:{port}", consumer_timeout_ms=1000 * DEADLINE_S)
    consumer.assign([kafka.TopicPartition("t", 0)])
    consumer.seek_to_beginning()
    read = len(list(islice(consumer, count)))
    consumer.close()
    return read


def read_with_aiokafka(port: int, count: int) -> int:
    async def run() -> int:
        consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=f"127.0.0.1:{port}")
        async with consumer, asyncio.timeout(DEADLINE_S):
            consumer.assign([aiokafka.TopicPartition("t", 0)])
            await consumer.seek_to_beginning()
            for _ in range(count):
                await consumer.getone()
        return count

    return asyncio.run(run())


@pytest.mark.slow
def test_consumers_outlive_an_outage_of_the_object_store(own_s3: SeaweedFS, new_server: NewServer) -> None:
    """They ask again until it is back, and their users hear of no error."""
    server = new_server(config(own_s3)).start()
    lake.create_topic(server, "t")
    ledger = Ledger(server, "t")
    ledger.produce(3000, b"x" * 1000)
    ledger.settle()
    server.stop()
    server.start()
    own_s3.stop()
    readers = (read_with_confluent, read_with_kafka_python, read_with_aiokafka)
    with ThreadPoolExecutor(len(readers)) as threads:
        reading = [threads.submit(reader, server.port, 3000) for reader in readers]
        asked = fetch.FetchTopic(topic="t", partitions=(fetch.FetchPartition(partition_max_bytes=1 << 20),))
        with RawClient(server.port) as client:
            answer = client.call(ApiKey.FETCH, 11, fetch.FetchRequest(max_wait_ms=0, min_bytes=1, topics=(asked,)))
        assert answer.responses[0].partitions[0].error_code == ErrorCode.REPLICA_NOT_AVAILABLE
        wait(reading, timeout=5.0)
        assert not any(each.done() for each in reading)
        own_s3.start()
        assert [each.result() for each in reading] == [3000] * 3
    assert server.stop() == 0


@pytest.mark.slow
def test_an_outage_longer_than_the_wal_pushes_back_and_then_goes_on(own_s3: SeaweedFS, new_server: NewServer) -> None:
    server = new_server(config(own_s3, wal_bytes=4 << 20)).start()
    lake.create_topic(server, "t")
    ledger = Ledger(server, "t", **{"request.timeout.ms": 1000, "message.timeout.ms": 3000})
    own_s3.stop()
    while not ledger.failed:
        ledger.produce(100, b"x" * 5000)
        ledger.flush(0.2)
    assert {error.name() for error in ledger.failed} == {"_MSG_TIMED_OUT"}, "retriable, so the producer kept trying"
    with RawClient(server.port) as client:
        answer = client.produce("t", batch([bytes(500_000)]), timeout_ms=500)
        while "no room" not in (answer.error_message or ""):  # on a busy machine the ledger may have failed before
            answer = client.produce("t", batch([bytes(500_000)]), timeout_ms=500)
        assert answer.error_code == ErrorCode.REQUEST_TIMED_OUT
    own_s3.start()
    ledger.produce(100)
    assert ledger.flush() == 0
    ledger.check(server)
    assert server.stop() == 0


@pytest.mark.slow
def test_a_stop_during_an_outage_does_not_hang_and_keeps_all(own_s3: SeaweedFS, new_server: NewServer) -> None:
    server = new_server(config(own_s3)).start()
    lake.create_topic(server, "t")
    producer = Producer({"bootstrap.servers": server.bootstrap})
    own_s3.stop()
    for number in range(100):
        producer.produce("t", str(number))
    assert producer.flush(DEADLINE_S) == 0
    assert server.stop() == 0
    assert "not all was uploaded; the write-ahead log keeps it" in server.log
    own_s3.start()
    server.start()
    assert len(read_log(server, "t")) == 100
    assert server.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "change, says", [({"endpoint": "http://127.0.0.1:1"}, "127.0.0.1:1"), ({"secret_key": "wrong"}, "refuses our key")]
)
def test_a_bucket_that_cannot_be_reached_is_told_at_the_first_start_later_with_the_first_upload(
    seaweedfs: SeaweedFS, new_server: NewServer, change: dict[str, str], says: str
) -> None:
    """A store that was never seen must be claimed first; one that is ours is not needed to take records."""
    values = {
        "bucket": seaweedfs.bucket(), "wal_bytes": 16 << 20, "endpoint": seaweedfs.s3_endpoint,
        "access_key": seaweedfs.access_key, "secret_key": seaweedfs.secret_key,
    }  # fmt: skip
    right, wrong = STORAGE.format(**values), STORAGE.format(**values | change)
    server = new_server(wrong)
    with pytest.raises(RuntimeError, match=f"not started.*{says}"):
        server.start()
    server.config.write_text(right)
    server.start()
    lake.create_topic(server, "t")
    assert server.stop() == 0
    server.config.write_text(wrong)
    server.start()
    with RawClient(server.port) as client:
        assert client.produce("t", batch([b"a"])).error_code == 0
    wait_until(lambda: "upload failed, retrying" in server.log, lambda: server.log)
    line = next(x for x in server.log.splitlines() if "upload failed, retrying" in x)
    assert says in line

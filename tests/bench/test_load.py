"""What the loads send and count: values, arrivals, percentiles; the loads themselves against a real server."""

import time
import zlib
from itertools import pairwise

import pytest
from confluent_kafka import Consumer, TopicPartition
from support.wait import DEADLINE_S

from streamlake.bench.load import (
    Latencies,
    arrivals,
    fetch_throughput,
    produce_latency,
    produce_throughput,
    temporary_topic,
    values,
)
from streamlake.bench.process import in_child
from streamlake.core.errors import Invalid, Unavailable


def ends(lake, topic, partitions=1):
    consumer = Consumer({"bootstrap.servers": lake.bootstrap, "group.id": "ends"})
    try:
        found = [consumer.get_watermark_offsets(TopicPartition(topic, p), DEADLINE_S) for p in range(partitions)]
    finally:
        consumer.close()
    return sum(high - low for low, high in found)


def test_values_have_their_size_differ_and_compress_by_half():
    made = values(101, 50)
    assert {len(v) for v in made} == {101}
    assert len(set(made)) == 50
    assert 0.4 < len(zlib.compress(values(10_000, 1)[0])) / 10_000 < 0.65
    with pytest.raises(Invalid):
        values(0)


@pytest.mark.parametrize("rate", [0.5, 10, 999, 1000, 12_345.6, 20_000])
def test_arrivals_keep_the_rate_and_come_in_ticks(rate):
    due = list(arrivals(rate, 10))
    assert sum(count for _, count in due) == pytest.approx(rate * 10, abs=1)
    assert all(count > 0 for _, count in due)
    times = [at for at, _ in due]
    assert times == sorted(times)
    assert times[-1] < 10
    assert min(b - a for a, b in pairwise(times)) >= 0.00099


def test_percentiles():
    found = Latencies.of([n / 1000 for n in range(1000, 0, -1)])
    assert (found.p50_ms, found.p99_ms, found.p999_ms, found.max_ms, found.count) == (500, 990, 999, 1000, 1000)
    assert Latencies.of([0.002]).p999_ms == 2
    with pytest.raises(Invalid, match="warm-up"):
        Latencies.of([])


def test_what_was_produced_is_there_and_can_be_fetched(lake):
    with temporary_topic(lake.bootstrap, 2) as topic:
        common = {"bootstrap": lake.bootstrap, "topic": topic}
        sent = in_child(produce_throughput, DEADLINE_S, None, **common, ring=values(50), seconds=30, records=10_000)
        assert (sent.records, sent.bytes) == (10_000, 500_000)
        assert sent.requests >= 1
        assert ends(lake, topic, 2) == 10_001  # the first one is not counted
        got = in_child(fetch_throughput, DEADLINE_S, None, **common, partitions=2, records=10_001, record_bytes=50)
        assert 0 < got.records < 10_001  # those after the first ones
        assert got.seconds > 0
        assert got.requests >= 1


def test_fetching_goes_on_for_so_long(lake):
    with temporary_topic(lake.bootstrap) as topic:
        common = {"bootstrap": lake.bootstrap, "topic": topic}
        in_child(produce_throughput, DEADLINE_S, None, **common, ring=values(50), seconds=30, records=20_000)
        common |= {"partitions": 1, "records": 20_001, "record_bytes": 50}
        started = time.perf_counter()
        once = in_child(fetch_throughput, DEADLINE_S, None, **common)
        assert once.records <= 20_001
        at_least_s = 4 * (time.perf_counter() - started)
        assert in_child(fetch_throughput, DEADLINE_S, None, **common, at_least_s=at_least_s).records > 20_001


def test_a_fixed_rate_sends_what_is_due_and_leaves_out_the_warm_up(lake):
    with temporary_topic(lake.bootstrap) as topic:
        found = in_child(
            produce_latency, DEADLINE_S, None,
            bootstrap=lake.bootstrap, topic=topic, rate=500, record_bytes=50, seconds=1, warm_up_s=0.5,
        )  # fmt: skip
        assert ends(lake, topic) == 750
        assert 495 <= found.count <= 505


def test_refused_records_are_an_error(lake):
    with temporary_topic(lake.bootstrap, config={"max.message.bytes": "1000"}) as topic:
        common = {"bootstrap": lake.bootstrap, "topic": topic}
        with pytest.raises(Unavailable, match="not acknowledged"):
            in_child(produce_throughput, DEADLINE_S, None, **common, ring=values(5000), seconds=1)
        with pytest.raises(Unavailable, match="not acknowledged"):
            in_child(produce_latency, DEADLINE_S, None, **common, rate=10, record_bytes=5000, seconds=1, warm_up_s=0)


def test_a_topic_that_cannot_be_made(lake):
    with (
        pytest.raises(Unavailable, match=r"made no topic of 1 partitions: .*no\.such\.config"),
        temporary_topic(lake.bootstrap, config={"no.such.config": "1"}),
    ):
        pass


def test_no_broker():
    with pytest.raises(Unavailable, match=r"no Kafka broker answers at 127\.0\.0\.1:1"), temporary_topic("127.0.0.1:1"):
        pass

"""Fetch: sizes, waiting, sessions, epochs and errors, as a consumer meets them."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from support.log_bench import Bench, append
from support.raw_kafka import batch
from support.transactional_broker import TransactionalBroker
from support.transactions import end
from support.two_brokers import NO_HANDOVERS, OTHER, two_brokers
from support.wait import DEADLINE_S
from support.wire import Client, Topic, ends, fetch_partition, fetch_topic, newest, produce_request

from streamlake.cluster.store.topic_rows import PartitionInfo, TopicInfo
from streamlake.core.account import Account
from streamlake.core.errors import Corrupt, Fenced, Unavailable
from streamlake.core.ids import Ids
from streamlake.handlers import fetch as handler
from streamlake.handlers import leaders
from streamlake.handlers.fetch_session import FetchSessions
from streamlake.handlers.leaders import NOBODY, Leader
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, delete_records, delete_topics, fetch
from streamlake.protocol.requests import Call, api, decode_response, encode_response
from streamlake.record.batch import frames

VERSIONS = ends(ApiKey.FETCH)
NEWEST = newest(ApiKey.FETCH)
A_WHILE_MS = 60_000  # longer than any test waits: it ends because something happened


def request(*topics: fetch.FetchTopic, **fields: Any) -> fetch.FetchRequest:
    """At once by default, sessionless."""
    return fetch.FetchRequest(**({"max_wait_ms": 0, "min_bytes": 1, "topics": topics} | fields))


def only(answer: fetch.FetchResponse) -> fetch.PartitionData:
    assert answer.error_code == 0
    (topic,) = answer.responses
    (partition,) = topic.partitions
    return partition


def offsets(data: fetch.PartitionData) -> list[int]:
    """First offsets of the batches in an answer."""
    return [header.base_offset for header, _ in frames(data.records or b"")]


@pytest.mark.parametrize("version", VERSIONS)
def test_reads_what_was_produced(client: Client, topic: Topic, version: int) -> None:
    client.append(topic, batch([b"a", b"b"]), batch([b"c"]))
    data = only(client.ask(ApiKey.FETCH, version, request(fetch_topic(topic, fetch_partition()))))
    assert (data.error_code, data.high_watermark, data.last_stable_offset) == (0, 3, 3)
    assert data.log_start_offset == (0 if version >= 5 else -1)
    assert offsets(data) == [0, 2]
    assert data.preferred_read_replica == -1


def test_the_answer_names_topics_as_its_version_does(client: Client, topic: Topic) -> None:
    named = client.ask(ApiKey.FETCH, 12, request(fetch_topic(topic, fetch_partition()))).responses[0]
    by_id = client.ask(ApiKey.FETCH, 13, request(fetch_topic(topic, fetch_partition()))).responses[0]
    assert (named.topic, named.topic_id) == (topic.name, None)
    assert (by_id.topic, by_id.topic_id) == ("", topic.id)


def test_begins_with_the_batch_that_holds_the_offset(client: Client, topic: Topic) -> None:
    client.append(topic, batch([b"v"] * 5), batch([b"v"] * 5))
    for offset, expected in ((0, [0, 5]), (4, [0, 5]), (5, [5]), (9, [5]), (10, [])):
        assert (
            offsets(only(client.newest(ApiKey.FETCH, request(fetch_topic(topic, fetch_partition(offset)))))) == expected
        )


def test_offset_out_of_range(client: Client, topic: Topic) -> None:
    client.append(topic, batch([b"v"] * 5), batch([b"v"]))
    moved = delete_records.DeleteRecordsTopic(topic.name, (delete_records.DeleteRecordsPartition(0, 5),))
    client.newest(ApiKey.DELETE_RECORDS, delete_records.DeleteRecordsRequest(topics=(moved,)))
    for offset in (-1, 4, 7):
        data = only(client.newest(ApiKey.FETCH, request(fetch_topic(topic, fetch_partition(offset)))))
        assert (data.error_code, data.high_watermark) == (ErrorCode.OFFSET_OUT_OF_RANGE, -1)
        assert data.records == b"", "librdkafka cannot parse null records"
        assert (data.log_start_offset, data.aborted_transactions) == (5, None)
    assert offsets(only(client.newest(ApiKey.FETCH, request(fetch_topic(topic, fetch_partition(5)))))) == [5]


def test_the_first_batch_comes_whole_however_small_the_limits(client: Client, topic: Topic) -> None:
    """Else a consumer whose limit is below one batch could never go on (KIP-74)."""
    size = len(batch([bytes(1000)]))
    client.append(topic, *[batch([bytes(1000)])] * 3)
    for limits in ({"max_bytes": 1}, {"max_bytes": 0}, {"max_bytes": -1}):
        answer = client.newest(ApiKey.FETCH, request(fetch_topic(topic, fetch_partition()), **limits))
        assert offsets(only(answer)) == [0]
    for limit, count in ((1, 1), (2 * size, 2), (2 * size - 1, 1), (3 * size, 3)):
        asked = fetch_topic(topic, fetch_partition(max_bytes=limit))
        assert len(offsets(only(client.newest(ApiKey.FETCH, request(asked))))) == count


def test_max_bytes_is_for_the_whole_answer(client: Client) -> None:
    topic = client.create_topic(partitions=3)
    for index in range(3):
        client.append(topic, batch([bytes(1000)]), partition=index)
    size = len(batch([bytes(1000)]))
    asked = fetch_topic(topic, *(fetch_partition(index=i) for i in range(3)))
    for limit, expected in ((size, [1, 0, 0]), (2 * size, [1, 1, 0]), (1, [1, 0, 0])):
        (answered,) = client.newest(ApiKey.FETCH, request(asked, max_bytes=limit)).responses
        assert [len(offsets(p)) for p in answered.partitions] == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_a_long_poll_is_woken_by_a_produce(
    client: Client, topic: Topic, connect: Callable[[], Client], version: int
) -> None:
    asked = fetch_topic(topic, fetch_partition())
    client.post(ApiKey.FETCH, version, request(asked, max_wait_ms=A_WHILE_MS))
    connect().append(topic, batch([b"v"]))
    assert offsets(only(client.answer(ApiKey.FETCH, version))) == [0]


def test_a_long_poll_waits_for_min_bytes(client: Client, topic: Topic, connect: Callable[[], Client]) -> None:
    asked = fetch_topic(topic, fetch_partition())
    client.post(ApiKey.FETCH, NEWEST, request(asked, max_wait_ms=A_WHILE_MS, min_bytes=2000))
    assert connect().append(topic, *[batch([bytes(900)])] * 3) == [0, 1, 2]
    assert offsets(only(client.answer(ApiKey.FETCH, NEWEST))) == [0, 1, 2]


def test_a_long_poll_ends_with_what_there_is(client: Client, topic: Topic) -> None:
    client.append(topic, batch([b"v"]))
    asked = fetch_topic(topic, fetch_partition())
    answer = client.newest(ApiKey.FETCH, request(asked, max_wait_ms=50, min_bytes=1 << 20))
    assert offsets(only(answer)) == [0]
    assert (
        offsets(only(client.newest(ApiKey.FETCH, request(fetch_topic(topic, fetch_partition(1)), max_wait_ms=50))))
        == []
    )


@pytest.mark.parametrize("fields", [{"min_bytes": 0}, {"max_wait_ms": -5}])
def test_who_asks_for_nothing_waits_for_nothing(client: Client, topic: Topic, fields: dict[str, int]) -> None:
    asked = fetch_topic(topic, fetch_partition())
    assert offsets(only(client.newest(ApiKey.FETCH, request(asked, **({"max_wait_ms": A_WHILE_MS} | fields))))) == []


def test_a_long_poll_hears_that_its_topic_is_gone(client: Client, topic: Topic, connect: Callable[[], Client]) -> None:
    client.post(ApiKey.FETCH, NEWEST, request(fetch_topic(topic, fetch_partition()), max_wait_ms=A_WHILE_MS))
    gone = delete_topics.DeleteTopicsRequest(topics=(delete_topics.DeleteTopicState(name=topic.name),))
    connect().newest(ApiKey.DELETE_TOPICS, gone)
    answer = only(client.answer(ApiKey.FETCH, NEWEST))
    assert answer.error_code in (ErrorCode.UNKNOWN_TOPIC_ID, ErrorCode.NOT_LEADER_OR_FOLLOWER)


def test_while_a_poll_waits_the_next_request_is_served(client: Client, topic: Topic) -> None:
    client.post(ApiKey.FETCH, NEWEST, request(fetch_topic(topic, fetch_partition()), max_wait_ms=A_WHILE_MS), 1)
    client.post(ApiKey.PRODUCE, newest(ApiKey.PRODUCE), produce_request(topic, {0: batch([b"v"])}), 2)
    assert offsets(only(client.answer(ApiKey.FETCH, NEWEST, 1))) == [0]
    assert client.answer(ApiKey.PRODUCE, newest(ApiKey.PRODUCE), 2).responses[0].partition_responses[0].base_offset == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_unknown_topics_and_partitions_are_told_at_once(client: Client, topic: Topic, version: int) -> None:
    wait = {"max_wait_ms": A_WHILE_MS}
    unknown = fetch_topic(Topic("nowhere", UUID(int=5)), fetch_partition())
    data = only(client.ask(ApiKey.FETCH, version, request(unknown, **wait)))
    by_name = version < 13
    assert data.error_code == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if by_name else ErrorCode.UNKNOWN_TOPIC_ID)
    data = only(client.ask(ApiKey.FETCH, version, request(fetch_topic(topic, fetch_partition(index=9)), **wait)))
    assert (data.error_code, data.partition_index) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, 9)


def test_leader_epochs_are_checked(client: Client, topic: Topic) -> None:
    """The first open of a stream is epoch 0 (KIP-320)."""
    for epoch, code in ((-1, 0), (0, 0), (1, ErrorCode.UNKNOWN_LEADER_EPOCH)):
        asked = fetch_topic(topic, fetch_partition(current_leader_epoch=epoch))
        answer = client.newest(ApiKey.FETCH, request(asked))
        assert (only(answer).error_code, only(answer).current_leader.leader_id, answer.node_endpoints) == (code, -1, ())


@pytest.mark.parametrize("version", [15, 16, NEWEST])
async def test_who_asks_a_former_leader_is_told_the_new_one(monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """KIP-951, through the codec: a partition that is open elsewhere, and one that nobody has."""
    known = {0: Leader(OTHER.node, 7)}
    monkeypatch.setattr(leaders, "opener_of", lambda ctx, topic, index: known.get(index, NOBODY))
    found = TopicInfo("t", UUID(int=1), {}, (PartitionInfo(0, 1, 2), PartitionInfo(1, 2, 1)))
    ctx = SimpleNamespace(
        brokers=two_brokers(),
        fetch_sessions=FetchSessions(Ids(1)),
        topics=SimpleNamespace(by_id=lambda _: found),
        logs=SimpleNamespace(get=lambda *_: None),
        handovers=NO_HANDOVERS,
        connection_memory=Account(1 << 30),
    )
    asked = request(fetch_topic(Topic("t", found.id), fetch_partition(), fetch_partition(index=1)))
    answer = through_the_codec(version, await handler.handle(ctx, SimpleNamespace(body=asked, version=version)))
    (topic,) = answer.responses
    assert {p.error_code for p in topic.partitions} == {ErrorCode.NOT_LEADER_OR_FOLLOWER}
    hints = [(p.current_leader.leader_id, p.current_leader.leader_epoch) for p in topic.partitions]
    assert hints == ([(2, 7), (-1, -1)] if version >= 16 else [(-1, -1)] * 2)
    nodes = [(e.node_id, e.host, e.port) for e in answer.node_endpoints]
    assert nodes == ([(2, "two", 9002)] if version >= 16 else [])


async def test_a_fetch_from_a_partition_that_moves_is_refused_when_it_is_known_who_has_it() -> None:
    """And the connection's next requests start meanwhile."""
    moving, released = asyncio.get_running_loop().create_future(), asyncio.Event()
    there = PartitionInfo(0, 1, OTHER.node, 7, OTHER.node, OTHER.epoch)
    found = [TopicInfo("t", UUID(int=1), {}, (replace(there, owner=None), PartitionInfo(1, 2, 1)))]
    ctx = SimpleNamespace(
        brokers=two_brokers(),
        fetch_sessions=FetchSessions(Ids(1)),
        topics=SimpleNamespace(by_id=lambda _: found[0]),
        logs=SimpleNamespace(get=lambda *_: None),
        handovers=SimpleNamespace(until_over=lambda _, index: None if moving.done() or index else moving),
        connection_memory=Account(1 << 30),
    )
    topic = Topic("t", found[0].id)
    asked = request(fetch_topic(topic, fetch_partition()), max_wait_ms=A_WHILE_MS)
    exchange = SimpleNamespace(body=asked, version=NEWEST, release=released.set)
    waiting = asyncio.create_task(handler.handle(ctx, exchange))
    await released.wait()
    found[0] = replace(found[0], partitions=(there, found[0].partitions[1]))
    moving.set_result(None)
    refused = only(await waiting)
    assert refused.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert (refused.current_leader.leader_id, refused.current_leader.leader_epoch) == (OTHER.node, 7)


@pytest.mark.parametrize("case", ["no time", "too long", "another error"])
async def test_a_refusal_does_not_wait_for_ever(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "REFUSAL_WAIT_S", 0.01)
    moving = asyncio.get_running_loop().create_future()
    found = TopicInfo("t", UUID(int=1), {}, (PartitionInfo(0, 1, OTHER.node), PartitionInfo(1, 2, 1)))
    ctx = SimpleNamespace(
        brokers=two_brokers(),
        fetch_sessions=FetchSessions(Ids(1)),
        topics=SimpleNamespace(by_id=lambda _: found),
        logs=SimpleNamespace(get=lambda *_: None),
        handovers=SimpleNamespace(until_over=lambda _, index: None if index else moving),
        connection_memory=Account(1 << 30),
    )
    partitions = [fetch_partition(), *([fetch_partition(index=9)] if case == "another error" else [])]
    asked = fetch_topic(Topic("t", found.id), *partitions)
    wait_ms = 0 if case == "no time" else A_WHILE_MS
    exchange = SimpleNamespace(body=request(asked, max_wait_ms=wait_ms), version=NEWEST, release=lambda: None)
    async with asyncio.timeout(DEADLINE_S):
        (answer,) = (await handler.handle(ctx, exchange)).responses
    assert answer.partitions[0].error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert not moving.done(), "others wait for it, too"


async def test_who_fetches_under_a_former_epoch_is_told_the_one_of_now() -> None:
    found = TopicInfo("t", UUID(int=1), {}, (PartitionInfo(0, 1, 1),))
    ctx = SimpleNamespace(
        brokers=two_brokers(),
        fetch_sessions=FetchSessions(Ids(1)),
        topics=SimpleNamespace(by_id=lambda _: found),
        logs=SimpleNamespace(get=lambda *_: SimpleNamespace(leader_epoch=5, waiters=set())),
        handovers=NO_HANDOVERS,
        connection_memory=Account(1 << 30),
    )
    asked = request(fetch_topic(Topic("t", found.id), fetch_partition(current_leader_epoch=4)))
    answer = await handler.handle(ctx, SimpleNamespace(body=asked, version=NEWEST))
    assert only(answer).error_code == ErrorCode.FENCED_LEADER_EPOCH
    assert (only(answer).current_leader.leader_id, only(answer).current_leader.leader_epoch) == (1, 5)
    assert [(e.node_id, e.port) for e in answer.node_endpoints] == [(1, 9001)]


def through_the_codec(version: int, answer: fetch.FetchResponse) -> fetch.FetchResponse:
    found = api(ApiKey.FETCH)
    frame = b"".join(encode_response(Call(found, version, 1, None, None), answer))
    return decode_response(found, version, frame[4:])


def test_read_committed(client: Client, topic: Topic) -> None:
    client.append(topic, batch([b"v"]))
    asked = fetch_topic(topic, fetch_partition())
    assert only(client.newest(ApiKey.FETCH, request(asked))).aborted_transactions is None
    data = only(client.newest(ApiKey.FETCH, request(asked, isolation_level=1)))
    assert (offsets(data), data.aborted_transactions) == ([0], ())


def test_a_request_without_partitions_is_answered_at_once(client: Client) -> None:
    assert client.newest(ApiKey.FETCH, request(max_wait_ms=A_WHILE_MS)).responses == ()


class Session:
    """A consumer that uses sessions as KIP-227 says."""

    def __init__(self, client: Client, version: int) -> None:
        self.client, self.version = client, version
        self.id = self.epoch = 0

    def fetch(self, *topics: fetch.FetchTopic, forget: tuple[fetch.ForgottenTopic, ...] = ()) -> list[Any]:
        """(partition, first offsets) of what the answer carries."""
        asked = request(*topics, session_id=self.id, session_epoch=self.epoch, forgotten_topics_data=forget)
        answer = self.client.ask(ApiKey.FETCH, self.version, asked)
        assert answer.error_code == 0
        self.id, self.epoch = answer.session_id, self.epoch + 1
        return [(p.partition_index, offsets(p)) for t in answer.responses for p in t.partitions]


@pytest.mark.parametrize("version", [7, 12, NEWEST])
def test_a_session_tells_only_what_is_new(client: Client, version: int) -> None:
    topic = client.create_topic(partitions=2)
    client.append(topic, batch([b"v"]))
    session = Session(client, version)
    both = fetch_topic(topic, fetch_partition(1), fetch_partition(index=1))
    assert session.fetch(both) == [(0, []), (1, [])]
    assert session.id > 0
    assert session.fetch() == []
    client.append(topic, batch([b"v"]))
    assert session.fetch() == [(0, [1])]
    assert session.fetch() == [(0, [1])], "until the client moves on it is given its data again"
    assert session.fetch(fetch_topic(topic, fetch_partition(2))) == []
    forgotten = fetch.ForgottenTopic(topic=topic.name, topic_id=topic.id, partitions=(0,))
    client.append(topic, batch([b"v"]))
    client.append(topic, batch([b"v"]), partition=1)
    assert session.fetch(forget=(forgotten,)) == [(1, [0])]


def test_a_full_request_ends_the_session_it_names(client: Client, topic: Topic) -> None:
    session = Session(client, NEWEST)
    session.fetch(fetch_topic(topic, fetch_partition()))
    old = session.id
    session.epoch = 0
    assert session.fetch(fetch_topic(topic, fetch_partition())) == [(0, [])]
    assert session.id != old
    refused = client.newest(ApiKey.FETCH, request(session_id=old, session_epoch=1))
    assert refused.error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND


def test_the_final_epoch_closes_the_session_and_answers_in_full(client: Client, topic: Topic) -> None:
    session = Session(client, NEWEST)
    session.fetch(fetch_topic(topic, fetch_partition()))
    asked = fetch_topic(topic, fetch_partition())
    answer = client.newest(ApiKey.FETCH, request(asked, session_id=session.id, session_epoch=-1))
    assert (answer.session_id, only(answer).error_code) == (0, 0)
    refused = client.newest(ApiKey.FETCH, request(session_id=session.id, session_epoch=1))
    assert (refused.error_code, refused.responses) == (ErrorCode.FETCH_SESSION_ID_NOT_FOUND, ())


def test_a_wrong_session_epoch(client: Client, topic: Topic) -> None:
    session = Session(client, NEWEST)
    session.fetch(fetch_topic(topic, fetch_partition()))
    for epoch in (2, 5):
        refused = client.newest(ApiKey.FETCH, request(session_id=session.id, session_epoch=epoch))
        assert refused.error_code == ErrorCode.INVALID_FETCH_SESSION_EPOCH
    assert session.fetch() == []


def test_an_error_in_a_session_is_told_until_it_is_gone(client: Client, topic: Topic) -> None:
    session = Session(client, NEWEST)
    out_of_range = fetch_topic(topic, fetch_partition(5))
    assert session.fetch(out_of_range) == [(0, [])]
    assert session.fetch() == [(0, [])]
    assert session.fetch(fetch_topic(topic, fetch_partition(0))) == [(0, [])]
    assert session.fetch() == []


async def test_only_a_fetch_that_waits_lets_the_next_request_start() -> None:
    """Else a client that pipelines large fetches would have all their answers in memory at once."""
    partition = await Bench().open()
    partition.stream.auto_durable = True
    found = TopicInfo("t", UUID(int=1), {}, (PartitionInfo(0, 1, 0),))
    ctx = SimpleNamespace(
        fetch_sessions=FetchSessions(Ids(1)),
        topics=SimpleNamespace(by_id=lambda _: found),
        logs=SimpleNamespace(get=lambda *_: partition),
        connection_memory=Account(1 << 30),
    )
    released = asyncio.Event()
    exchange = SimpleNamespace(body=None, version=NEWEST, release=released.set)
    asked = fetch_topic(Topic("t", found.id), fetch_partition())
    exchange.body = request(asked, max_wait_ms=A_WHILE_MS)
    waiting = asyncio.create_task(handler.handle(ctx, exchange))
    await released.wait()
    append(partition, Bench().batch())
    assert offsets(only(await waiting)) == [0]
    released.clear()
    assert offsets(only(await handler.handle(ctx, exchange))) == [0]
    assert not released.is_set()


async def test_a_fetch_that_read_for_long_goes_out_with_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else who asks for many partitions while readers are slowed down gives the request up, and never gets on."""
    monkeypatch.setattr(handler, "READ_S_MAX", -1.0)
    bench = Bench()
    partitions = [await bench.open() for _ in range(4)]
    for partition in partitions[1:]:
        partition.stream.auto_durable = True
        append(partition, bench.batch())
    found = TopicInfo("t", UUID(int=1), {}, (PartitionInfo(0, 1, 0),) * 4)
    ctx = SimpleNamespace(
        fetch_sessions=FetchSessions(Ids(1)),
        topics=SimpleNamespace(by_id=lambda _: found),
        logs=SimpleNamespace(get=lambda _, n: partitions[n]),
        connection_memory=Account(1 << 30),
    )
    asked = fetch_topic(Topic("t", found.id), *(fetch_partition(index=n) for n in range(4)))
    exchange = SimpleNamespace(body=request(asked), version=NEWEST)
    (answer,) = (await handler.handle(ctx, exchange)).responses
    assert [bool(p.records) for p in answer.partitions] == [False, True, False, False]


async def test_while_connections_hold_much_an_answer_is_small_and_leaves_at_once() -> None:
    """A thousand consumers that do not read must not be given fifty MiB each. One batch always comes (KIP-74)."""
    bench = Bench()
    partition = await bench.open()
    partition.stream.auto_durable = True
    sizes = []
    for _ in range(4):
        data = bench.batch()
        sizes.append(len(data))
        append(partition, data)
    found = TopicInfo("t", UUID(int=1), {}, (PartitionInfo(0, 1, 0),))
    memory = Account(1 << 20)
    ctx = SimpleNamespace(
        fetch_sessions=FetchSessions(Ids(1)),
        topics=SimpleNamespace(by_id=lambda _: found),
        logs=SimpleNamespace(get=lambda *_: partition),
        connection_memory=memory,
    )
    asked = request(fetch_topic(Topic("t", found.id), fetch_partition()), max_wait_ms=A_WHILE_MS, min_bytes=sum(sizes))
    exchange = SimpleNamespace(body=asked, version=NEWEST)

    async def answer_bytes() -> int:
        async with asyncio.timeout(DEADLINE_S):
            return len(only(await handler.handle(ctx, exchange)).records or b"")

    assert await answer_bytes() == sum(sizes)
    memory.count(memory.free_bytes - sum(sizes[:2]))
    assert await answer_bytes() == sum(sizes[:2]), "what the connections leave"
    memory.count(1 << 20)
    assert await answer_bytes() == sizes[0]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unavailable("the store is away"), ErrorCode.REPLICA_NOT_AVAILABLE),
        (Corrupt("damaged"), ErrorCode.KAFKA_STORAGE_ERROR),
        (Fenced("elsewhere"), ErrorCode.NOT_LEADER_OR_FOLLOWER),
    ],
)
async def test_what_cannot_be_read_now_is_told_so_that_consumers_try_again(error: Exception, code: ErrorCode) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise error

    found = TopicInfo("t", UUID(int=1), {}, (PartitionInfo(0, 1, 0),))
    partition = await Bench().open()
    partition.read = fail  # type: ignore[method-assign]
    ctx = SimpleNamespace(
        brokers=two_brokers(),
        fetch_sessions=FetchSessions(Ids(1)),
        topics=SimpleNamespace(by_id=lambda _: found),
        logs=SimpleNamespace(get=lambda *_: partition),
        handovers=NO_HANDOVERS,
        connection_memory=Account(1 << 30),
    )
    exchange = SimpleNamespace(body=request(fetch_topic(Topic("t", found.id), fetch_partition())), version=NEWEST)
    assert only(await handler.handle(ctx, exchange)).error_code == code


async def test_readers_of_committed_records_wait_for_the_last_stable_offset() -> None:
    """And are told which aborted transactions lie in what they get."""
    broker = await TransactionalBroker().start()
    await broker.produce(broker.bench.batch(1), transactional_id=None)
    await broker.produce(broker.batch())
    data = await broker.fetch(0)
    assert (data.high_watermark, data.last_stable_offset, data.aborted_transactions) == (2, 1, ())
    assert broker.bench.offsets([data.records]) == [0]
    waiting = asyncio.create_task(broker.fetch(1, wait_ms=A_WHILE_MS))
    while not broker.partitions[0].waiters:
        await asyncio.sleep(0)
    await broker.produce(broker.bench.batch(1), transactional_id=None)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done(), "what comes after an open transaction is not stable"
    end(broker.partitions[0], commit=False)
    data = await waiting
    assert (data.high_watermark, data.last_stable_offset) == (4, 4)
    assert data.aborted_transactions == (fetch.AbortedTransaction(1, 1),)
    assert broker.bench.offsets(data.records.buffers) == [1, 2, 3]
    assert (await broker.fetch(1, committed=False)).aborted_transactions is None

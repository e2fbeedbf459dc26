"""Our codec against kio's, over every version of every message; and against bytes that nobody meant as a message."""

import os
import random

import pytest
from support.kio_messages import assert_same, entities, kio_bytes, random_entity

from streamlake.protocol import codec
from streamlake.protocol.messages import ApiKey, create_topics, fetch, metadata, offset_fetch, produce
from streamlake.protocol.requests import Api, api
from streamlake.protocol.wire import Malformed, Unencodable

ROUNDS = int(os.environ.get("STREAMLAKE_ORACLE_ROUNDS", "2"))
APIS = [api(key) for key in ApiKey]


@pytest.mark.parametrize("each", APIS, ids=lambda a: a.name)
def test_same_bytes_and_values_as_kio(each: Api) -> None:
    rng = random.Random(each.key)
    for version, ours, theirs in entities(each):
        flexible = each.is_flexible(version)
        for _ in range(ROUNDS):
            entity = random_entity(theirs, rng)
            expected = kio_bytes(entity)
            message = codec.decode(ours, version, flexible, expected)
            assert_same(message, entity)
            assert b"".join(codec.encode(message, version, flexible)) == expected, (version, ours)


@pytest.mark.parametrize("each", APIS, ids=lambda a: a.name)
def test_mutated_bytes_are_malformed_or_a_message(each: Api) -> None:
    """Cut, overwritten and lengthened frames, each at any position: nothing but Malformed comes out."""
    rng = random.Random(each.key)
    for version, ours, theirs in entities(each):
        flexible = each.is_flexible(version)
        good = kio_bytes(random_entity(theirs, rng))
        for _ in range(4 * ROUNDS):
            bad = bytearray(good) or bytearray(1)
            at = rng.randrange(len(bad))
            bad[at : at + 1] = rng.choice(
                [b"", b"\xff", b"\x80", b"\xff\xff\xff\xff\x0f", b"\x7f\xff\xff\xff", rng.randbytes(3)]
            )
            frame = bytes(bad[: rng.choice([len(bad), rng.randrange(len(bad) + 1)])])
            try:
                codec.decode(ours, version, flexible, frame)
            except Malformed:
                pass


@pytest.mark.parametrize("each", APIS, ids=lambda a: a.name)
def test_random_bytes_are_malformed_or_a_message(each: Api) -> None:
    rng = random.Random(each.key)
    for version in each.versions:
        for message in (each.request, each.response):
            for _ in range(2 * ROUNDS):
                try:
                    codec.decode(message, version, each.is_flexible(version), rng.randbytes(rng.randrange(60)))
                except Malformed:
                    pass


@pytest.mark.parametrize("each", APIS, ids=lambda a: a.name)
def test_every_cut_of_a_message_is_malformed(each: Api) -> None:
    rng = random.Random(each.key)
    for version, ours, theirs in entities(each):
        whole = kio_bytes(random_entity(theirs, rng))
        for size in {0, len(whole) // 2, len(whole) - 1} - {-1, len(whole)}:
            with pytest.raises(Malformed):
                codec.decode(ours, version, each.is_flexible(version), whole[:size])


@pytest.mark.parametrize("each", APIS, ids=lambda a: a.name)
def test_defaults_round_trip(each: Api) -> None:
    """A message without arguments can be sent and read in every version, but for fields that must not be null."""
    for version in each.versions:
        for message in (each.request, each.response):
            sent = b"".join(codec.encode(message(), version, each.is_flexible(version)))
            assert codec.decode(message, version, each.is_flexible(version), sent) == message()


GOLDEN = [
    (
        metadata.MetadataRequest(topics=(metadata.MetadataRequestTopic(name="t"),)),
        1,
        "00000001 0001 74",
    ),
    (
        metadata.MetadataRequest(topics=None, allow_auto_topic_creation=False),
        12,
        "00 00 00 00",
    ),
    (
        produce.ProduceRequest(
            acks=-1,
            timeout_ms=1500,
            topic_data=(
                produce.TopicProduceData(
                    name="ab", partition_data=(produce.PartitionProduceData(index=7, records=b"xyz"),)
                ),
            ),
        ),
        9,
        "00 ffff 000005dc 02 03 6162 02 00000007 04 78797a 00 00 00",
    ),
    (
        produce.ProduceResponse(
            responses=(
                produce.TopicProduceResponse(
                    name="ab",
                    partition_responses=(
                        produce.PartitionProduceResponse(
                            index=1,
                            error_code=6,
                            base_offset=-1,
                            current_leader=produce.LeaderIdAndEpoch(leader_id=3, leader_epoch=9),
                        ),
                    ),
                ),
            ),
        ),
        10,
        "02 03 6162 02 00000001 0006 ffffffffffffffff ffffffffffffffff ffffffffffffffff 01 00"
        "01 00 09 00000003 00000009 00  00 00000000 00",
    ),
    (
        create_topics.CreateTopicsRequest(
            topics=(create_topics.CreatableTopic(name="t", num_partitions=2, replication_factor=-1),), timeout_ms=9
        ),
        4,
        "00000001 0001 74 00000002 ffff 00000000 00000000 00000009 00",
    ),
]


@pytest.mark.parametrize(("message", "version", "expected"), GOLDEN, ids=lambda g: type(g).__name__)
def test_golden_bytes(message: object, version: int, expected: str) -> None:
    """Worked out by hand from Kafka's message definitions: an oracle that no code shares."""
    flexible = version >= {"MetadataRequest": 9, "CreateTopicsRequest": 5}.get(type(message).__name__, 9)
    assert b"".join(codec.encode(message, version, flexible)) == bytes.fromhex(expected)
    assert codec.decode(type(message), version, flexible, bytes.fromhex(expected)) == message


def test_fields_that_a_version_lacks_take_their_default() -> None:
    frame = b"".join(codec.encode(fetch.FetchRequest(max_bytes=5, rack_id="r", session_id=9), 4, False))
    assert codec.decode(fetch.FetchRequest, 4, False, frame) == fetch.FetchRequest(max_bytes=5)


def test_records_are_never_copied() -> None:
    records = bytes(100_000)
    message = produce.ProduceRequest(
        topic_data=(produce.TopicProduceData(partition_data=(produce.PartitionProduceData(records=records),)),)
    )
    buffers = codec.encode(message, 9, True, head=b"head")
    assert any(buffer is records for buffer in buffers)
    assert bytes(buffers[0][:4]) == b"head"
    frame = b"".join(buffers)
    view = codec.decode(produce.ProduceRequest, 9, True, frame, 4).topic_data[0].partition_data[0].records
    assert isinstance(view, memoryview) and view.obj is frame and view.readonly and view == records


def test_small_records_share_the_buffer_of_their_neighbours() -> None:
    partitions = tuple(fetch.PartitionData(partition_index=i, records=b"small") for i in range(10))
    message = fetch.FetchResponse(responses=(fetch.FetchableTopicResponse(topic="t", partitions=partitions),))
    assert len(codec.encode(message, 11, False)) == 1


@pytest.mark.parametrize(
    ("message", "version", "where"),
    [
        (metadata.MetadataRequest(topics=None), 0, "MetadataRequest.topics"),
        (metadata.MetadataRequest(topics=(metadata.MetadataRequestTopic(name=None),)), 9, "MetadataRequestTopic.name"),
        (offset_fetch.OffsetFetchRequest(group_id="g", topics=None), 1, "OffsetFetchRequest.topics"),
    ],
)
def test_null_where_the_version_forbids_it_names_the_field(message: object, version: int, where: str) -> None:
    with pytest.raises(Unencodable, match=f"{where} is null"):
        codec.encode(message, version, version >= 9)


def test_a_value_that_does_not_fit_is_unencodable() -> None:
    with pytest.raises(Unencodable, match="ProduceRequest version 9"):
        codec.encode(produce.ProduceRequest(acks=1 << 20), 9, True)
    with pytest.raises(Unencodable, match="ProduceRequest version 3"):
        codec.encode(produce.ProduceRequest(transactional_id="x" * 40_000), 3, False)

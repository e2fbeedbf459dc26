"""What a hostile or a newer client may send. The broad oracle is in test_codec.py."""

import struct
import tracemalloc

import pytest

from streamlake.protocol import codec
from streamlake.protocol.decoder import decoder, smallest_bytes
from streamlake.protocol.messages import ApiKey, describe_topic_partitions, fetch, metadata, offset_commit, produce
from streamlake.protocol.requests import Api, api
from streamlake.protocol.wire import Malformed

FLEXIBLE_APIS = [a for a in map(api, ApiKey) if a.is_flexible(a.versions[-1])]


@pytest.mark.parametrize("each", FLEXIBLE_APIS, ids=lambda a: a.name)
def test_unknown_tags_are_skipped_in_every_flexible_message(each: Api) -> None:
    """KIP-482: a newer client may add tagged fields, at the end of the message as anywhere."""
    for version in each.versions:
        if not each.is_flexible(version):
            continue
        for message in (each.request, each.response):
            plain = b"".join(codec.encode(message(), version, True))
            assert plain.endswith(b"\x00")  # no tagged field differs from its default
            tagged = plain[:-1] + b"\x02" + b"\x63\x02hi" + b"\x80\x01\x00"  # tags 99 and 128
            assert decoder(message, version, True)(tagged + b"next", 0, [2]) == (message(), len(tagged))


def test_unknown_tags_inside_a_nested_struct_are_skipped() -> None:
    frame = b"\x02" + bytes(16) + b"\x02t\x01\x63\x01x" + b"\x01\x00\x00"
    expected = metadata.MetadataRequest(
        topics=(metadata.MetadataRequestTopic(name="t"),), allow_auto_topic_creation=True
    )
    assert decoder(metadata.MetadataRequest, 12, True)(frame, 0, [2]) == (expected, len(frame))


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\x7f", b"\x80\x80\x80\x80\x08"])
def test_a_huge_array_costs_nothing(length: bytes) -> None:
    """The 25-byte request that aborts a process whose reader trusts the length."""
    frame = length + bytes(20)
    codec.decode(metadata.MetadataRequest, 12, True, b"\x00\x00\x00\x00")  # compiled
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match=r"MetadataRequest\.topics"):
            codec.decode(metadata.MetadataRequest, 12, True, frame)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_huge_array_of_numbers_costs_nothing() -> None:
    frame = bytearray(b"".join(codec.encode(metadata.MetadataResponse(), 1, False)))
    frame[0:4] = struct.pack(">i", 2**31 - 1)
    with pytest.raises(Malformed, match="more elements than bytes"):
        codec.decode(metadata.MetadataResponse, 1, False, frame)
    partition = fetch.ForgottenTopic(topic="t", partitions=(1,))
    sent = b"".join(codec.encode(fetch.FetchRequest(forgotten_topics_data=(partition,)), 7, False))
    assert codec.decode(fetch.FetchRequest, 7, False, sent).forgotten_topics_data == (partition,)
    with pytest.raises(Malformed, match=r"ForgottenTopic\.partitions"):
        codec.decode(fetch.FetchRequest, 7, False, sent.replace(struct.pack(">ii", 1, 1), struct.pack(">ii", 2**30, 1)))


def test_an_array_must_fit_by_the_smallest_size_of_its_elements() -> None:
    """A partition of OffsetCommit has at least 14 bytes: 100 bytes cannot hold 50 of them."""
    topic = struct.pack(">i", 1) + b"\x00\x01t" + struct.pack(">i", 50) + bytes(100)
    head = b"\x00\x01g" + struct.pack(">i", 1) + b"\x00\x01m" + struct.pack(">q", -1)
    with pytest.raises(Malformed, match=r"OffsetCommitRequestTopic\.partitions claims more elements"):
        codec.decode(offset_commit.OffsetCommitRequest, 2, False, head + topic)
    assert smallest_bytes(offset_commit.OffsetCommitRequestPartition, 2, False) == 4 + 8 + 2
    assert smallest_bytes(offset_commit.OffsetCommitRequestPartition, 8, True) == 4 + 8 + 4 + 1 + 1
    assert smallest_bytes(describe_topic_partitions.DescribeTopicPartitionsRequest, 0, True) == 1 + 4 + 1 + 1


@pytest.mark.parametrize(
    ("message", "version", "flexible", "frame", "where"),
    [
        (metadata.MetadataRequest, 0, False, b"\xff\xff\xff\xff", "MetadataRequest.topics"),
        (metadata.MetadataRequest, 1, False, b"\x00\x00\x00\x01\xff\xff", "MetadataRequestTopic.name"),
        (produce.ProduceRequest, 9, True, b"\x00\x00\x01\x00\x00\x00\x00\x00", "ProduceRequest.topic_data"),
    ],
)
def test_null_where_none_may_be_is_malformed(
    message: type, version: int, flexible: bool, frame: bytes, where: str
) -> None:
    with pytest.raises(Malformed, match=f"{where} is null"):
        codec.decode(message, version, flexible, frame)


def test_null_where_it_may_be() -> None:
    assert codec.decode(metadata.MetadataRequest, 1, False, b"\xff\xff\xff\xff").topics is None
    cursor = codec.decode(
        describe_topic_partitions.DescribeTopicPartitionsRequest, 0, True, b"\x01\0\0\0\x05\xff\x00"
    ).cursor
    assert cursor is None


def test_a_known_tag_must_fill_its_size() -> None:
    message = fetch.FetchRequest(cluster_id="abc")
    frame = b"".join(codec.encode(message, 12, True))
    assert codec.decode(fetch.FetchRequest, 12, True, frame) == message
    lying = frame.replace(b"\x00\x04\x04abc", b"\x00\x03\x04abc")
    assert lying != frame
    with pytest.raises(Malformed, match=r"FetchRequest\.cluster_id"):
        codec.decode(fetch.FetchRequest, 12, True, lying)


def test_text_must_be_utf8() -> None:
    with pytest.raises(Malformed, match="utf-8"):
        codec.decode(metadata.MetadataRequest, 0, False, b"\x00\x00\x00\x01\x00\x01\xff")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_frames_may_be_any_buffer(kind: type) -> None:
    frame = b"".join(codec.encode(offset_commit.OffsetCommitRequest(group_id="é", member_id="m"), 8, True))
    assert codec.decode(offset_commit.OffsetCommitRequest, 8, True, kind(frame)).group_id == "é"


def test_elements_are_counted_over_the_whole_message() -> None:
    """One byte of a frame can become a hundred in memory: a limit for each array alone would not hold."""
    names = struct.pack(">i", 1000) + bytes(2000)
    assert len(codec.decode(metadata.MetadataRequest, 0, False, names, 0, 1000).topics) == 1000
    with pytest.raises(Malformed, match=r"MetadataRequest\.topics has more elements"):
        codec.decode(metadata.MetadataRequest, 0, False, names, 0, 999)
    topic = b"\x00\x01t" + struct.pack(">i", 2) + bytes(16)  # a name, two partitions
    nested = b"\xff\xff" + bytes(6) + struct.pack(">i", 3) + topic * 3
    assert len(codec.decode(produce.ProduceRequest, 3, False, nested, 0, 9).topic_data) == 3
    with pytest.raises(Malformed, match="partition_data has more elements"):
        codec.decode(produce.ProduceRequest, 3, False, nested, 0, 8)


def test_tagged_fields_count_as_elements() -> None:
    frame = b"\x00\x00\x00\x05" + b"\x63\x00" * 5
    assert codec.decode(metadata.MetadataRequest, 12, True, frame, 0, 5).topics is None
    with pytest.raises(Malformed, match="MetadataRequest has more elements"):
        codec.decode(metadata.MetadataRequest, 12, True, frame, 0, 4)

"""How messages are cut into buffers, and tags. The broad oracle is in test_codec.py."""

from streamlake.protocol import codec
from streamlake.protocol.encoder import encoder
from streamlake.protocol.messages import fetch, produce
from streamlake.protocol.wire import Chunks


def encoded(message: object, version: int) -> tuple[bytearray, list]:
    out, cuts = bytearray(), []
    encoder(type(message), version, True)(message, out, cuts)
    return out, cuts


def test_cuts_say_where_large_records_belong() -> None:
    first, second = bytes(3000), memoryview(bytes(4000))
    partitions = tuple(
        produce.PartitionProduceData(index=i, records=r) for i, r in enumerate((first, b"small", second))
    )
    message = produce.ProduceRequest(topic_data=(produce.TopicProduceData(name="t", partition_data=partitions),))
    out, cuts = encoded(message, 9)
    assert [records for _, records in cuts] == [first, second]
    assert out[cuts[0][0] - 2 : cuts[0][0]] == b"\xb9\x17"  # 3001 as a varint stands right before
    assert b"small" in out and cuts[0][0] < out.index(b"small") < cuts[1][0]


def test_records_in_several_buffers_leave_as_they_lie() -> None:
    parts = [memoryview(bytes(range(200))), bytes(5000), b"end"]
    whole, chunks = (
        fetch.FetchResponse(
            responses=(fetch.FetchableTopicResponse(partitions=(fetch.PartitionData(records=records),) * 2),)
        )
        for records in (b"".join(parts), Chunks(parts))
    )
    buffers = codec.encode(chunks, 12, True, b"head")
    assert b"".join(buffers) == b"".join(codec.encode(whole, 12, True, b"head"))
    assert all(any(part is buffer for buffer in buffers) for part in parts), "uncopied"
    assert all(buffers), "nothing empty is sent"


def test_tagged_fields_leave_only_if_they_differ_from_their_default() -> None:
    plain, _ = encoded(fetch.FetchRequest(), 15)
    assert plain.endswith(b"\x00")
    state = fetch.ReplicaState(replica_id=1, replica_epoch=2)
    tagged, _ = encoded(fetch.FetchRequest(cluster_id="c", replica_state=state), 15)
    assert tagged[: len(plain) - 1] == plain[:-1]
    section = "02" + "00 02 0263" + "01 0d 00000001 0000000000000002 00"  # in the order of the tags
    assert tagged[len(plain) - 1 :] == bytes.fromhex(section)


def test_each_class_and_version_is_compiled_once() -> None:
    assert encoder(fetch.FetchRequest, 12, True) is encoder(fetch.FetchRequest, 12, True)
    assert encoder(fetch.FetchRequest, 12, True) is not encoder(fetch.FetchRequest, 13, True)

"""Fetch: records, errors of partitions, sessions."""

from uuid import UUID

from differ.offsets import filled
from differ.producing import NOW_MS, numbered, send
from differ.scenario import scenario
from differ.side import Side
from support.wire import Topic, fetch_partition, fetch_topic, produce_request

from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.fetch import FetchPartition, FetchRequest, ForgottenTopic
from streamlake.record.compression import Compression
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch


def fetching(topic: Topic, *partitions: FetchPartition, **fields: object) -> FetchRequest:
    given = {"max_wait_ms": 0, "min_bytes": 0, "topics": (fetch_topic(topic, *partitions),)} | fields
    return FetchRequest(**given)  # type: ignore[arg-type]


@scenario
def fetch(side: Side) -> None:
    topic = filled(side, "fetched")
    unknown = Topic("never-there", UUID(int=99))

    def asks(note: str, request: FetchRequest, versions: tuple[int, ...] = (4, 7, 11, 12, 13, 18)) -> None:
        side.every(note, ApiKey.FETCH, request, versions)

    side.every("from the start", ApiKey.FETCH, fetching(topic, fetch_partition(0)))
    asks("from inside a batch", fetching(topic, fetch_partition(4)))
    asks("at the end", fetching(topic, fetch_partition(6)))
    asks("committed", fetching(topic, fetch_partition(0), isolation_level=1))
    asks("committed at the end", fetching(topic, fetch_partition(6), isolation_level=1))
    asks("behind the end", fetching(topic, fetch_partition(7)))
    asks("below zero", fetching(topic, fetch_partition(-1)))
    asks("unknown topic", fetching(unknown, fetch_partition(0)))
    asks("unknown partition", fetching(topic, fetch_partition(0, index=9)))
    asks("one byte of a partition", fetching(topic, fetch_partition(0, max_bytes=1)))
    asks("one byte in all", fetching(topic, fetch_partition(0), max_bytes=1))
    asks("no bytes of a partition", fetching(topic, fetch_partition(0, max_bytes=0)))
    asks("no partitions", fetching(topic))
    asks("current epoch", fetching(topic, fetch_partition(0, current_leader_epoch=0)), (9, 12, 18))
    asks("future epoch", fetching(topic, fetch_partition(0, current_leader_epoch=9)), (9, 12, 18))
    asks("last fetched epoch", fetching(topic, fetch_partition(3, last_fetched_epoch=0)), (12, 18))
    asks("a later last fetched epoch", fetching(topic, fetch_partition(3, last_fetched_epoch=4)), (12, 18))
    asks("two partitions, one unknown", fetching(topic, fetch_partition(0), fetch_partition(0, index=3)))


@scenario
def fetch_sessions(side: Side) -> None:
    topic = filled(side, "session")
    for version in (7, 12, 13, 18):
        first = side.ask("full", ApiKey.FETCH, version, fetching(topic, fetch_partition(0), session_epoch=0))
        session = first.session_id

        def next_(note: str, epoch: int, *partitions: FetchPartition, **fields: object) -> None:
            topics = (fetch_topic(topic, *partitions),) if partitions else ()
            request = fetching(topic, session_id=session, session_epoch=epoch, **({"topics": topics} | fields))  # noqa: B023
            side.ask(note, ApiKey.FETCH, version, request)  # noqa: B023

        next_("incremental, the same again", 1)
        next_("incremental, moved", 2, fetch_partition(6))
        next_("incremental, nothing new", 3)
        next_("incremental, a wrong epoch", 9)
        forgotten = ForgottenTopic(topic=topic.name, topic_id=topic.id, partitions=(0,))
        next_("incremental, forgotten", 4, forgotten_topics_data=(forgotten,))
        side.ask("unknown session", ApiKey.FETCH, version, fetching(topic, session_id=123456, session_epoch=1))
        next_("closed", -1)
        next_("incremental, after closing", 5)


@scenario
def recompression(side: Side) -> None:
    """Into `uncompressed` to the byte; what codecs make of it is their libraries' affair."""
    topic = side.topic("recompressed", compression_type="uncompressed", max_message_bytes="1000")
    for compression in Compression:
        send(side, topic, numbered(3, compression=compression))
    side.newest("what was compressed", ApiKey.FETCH, fetching(topic, fetch_partition(0)))
    large = encode_batch([Record(0, NOW_MS, None, bytes(5_000))], compression=Compression.GZIP)
    side.newest("too large after that", ApiKey.PRODUCE, produce_request(topic, {0: large}))

"""ListOffsets, OffsetForLeaderEpoch, DeleteRecords."""

from typing import Any

from differ.producing import numbered, send
from differ.scenario import scenario
from differ.side import Side
from support.wire import Topic

from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages import delete_records as dr
from streamlake.protocol.messages import list_offsets as lo
from streamlake.protocol.messages import offset_for_leader_epoch as oe

TIMES = {
    "latest": -1, "earliest": -2, "max timestamp": -3, "earliest local": -4, "latest tiered": -5,
    "earliest to go to a tier": -6, "minus seven": -7, "far below zero": -99,
}  # fmt: skip


def filled(side: Side, name: str, partitions: int = 1) -> Topic:
    """With offsets 0 to 5 in two batches of three, a minute apart."""
    topic = side.topic(name, partitions)
    send(side, topic, numbered(3))
    send(side, topic, numbered(3, later_ms=60_000))
    return topic


def listing(name: str, timestamp: int, partition: int = 0, epoch: int = -1, **fields: Any) -> lo.ListOffsetsRequest:
    row = lo.ListOffsetsPartition(partition_index=partition, current_leader_epoch=epoch, timestamp=timestamp)
    return lo.ListOffsetsRequest(
        **({"replica_id": -1, "topics": (lo.ListOffsetsTopic(name=name, partitions=(row,)),)} | fields)
    )


@scenario
def list_offsets(side: Side) -> None:
    filled(side, "listed")
    side.topic("listed-empty")
    for what, timestamp in TIMES.items():
        side.every(f"{what}", ApiKey.LIST_OFFSETS, listing("listed", timestamp))
        side.newest(f"{what} of an empty one", ApiKey.LIST_OFFSETS, listing("listed-empty", timestamp))
        committed = listing("listed", timestamp, isolation_level=1)
        side.newest(f"{what} committed", ApiKey.LIST_OFFSETS, committed)
    for what, timestamp in {"zero": 0, "far future": 1 << 60}.items():
        side.every(f"time {what}", ApiKey.LIST_OFFSETS, listing("listed", timestamp))
    side.every("unknown topic", ApiKey.LIST_OFFSETS, listing("never-there", -1))
    side.every("unknown partition", ApiKey.LIST_OFFSETS, listing("listed", -1, partition=7))
    side.newest("partition below zero", ApiKey.LIST_OFFSETS, listing("listed", -1, partition=-1))
    side.every("current epoch", ApiKey.LIST_OFFSETS, listing("listed", -1, epoch=0), (4, 8))
    side.every("future epoch", ApiKey.LIST_OFFSETS, listing("listed", -1, epoch=99), (4, 8))
    rows = tuple(lo.ListOffsetsPartition(partition_index=0, timestamp=t) for t in (-1, -2))
    twice = lo.ListOffsetsRequest(replica_id=-1, topics=(lo.ListOffsetsTopic(name="listed", partitions=rows),))
    side.newest("a partition twice", ApiKey.LIST_OFFSETS, twice)
    side.newest("as the debugging consumer", ApiKey.LIST_OFFSETS, listing("listed", -1, replica_id=-2))
    side.newest("none", ApiKey.LIST_OFFSETS, lo.ListOffsetsRequest(replica_id=-1))


@scenario
def offset_for_leader_epoch(side: Side) -> None:
    filled(side, "epochs")

    def asks(note: str, name: str, epoch: int, partition: int = 0, current: int = -1) -> None:
        row = oe.OffsetForLeaderPartition(partition=partition, current_leader_epoch=current, leader_epoch=epoch)
        topics = (oe.OffsetForLeaderTopic(topic=name, partitions=(row,)),)
        request = oe.OffsetForLeaderEpochRequest(replica_id=-1, topics=topics)
        side.every(note, ApiKey.OFFSET_FOR_LEADER_EPOCH, request)

    asks("the epoch", "epochs", 0)
    asks("a later epoch", "epochs", 5)
    asks("epoch -1", "epochs", -1)
    asks("a future current epoch", "epochs", 0, current=9)
    asks("unknown topic", "never-there", 0)
    asks("unknown partition", "epochs", 0, partition=9)


def cut(name: str, offset: int, partition: int = 0) -> dr.DeleteRecordsRequest:
    row = dr.DeleteRecordsPartition(partition_index=partition, offset=offset)
    return dr.DeleteRecordsRequest(topics=(dr.DeleteRecordsTopic(name=name, partitions=(row,)),), timeout_ms=30_000)


@scenario
def delete_records(side: Side) -> None:
    filled(side, "shortened")
    for version in range(3):
        side.ask("some", ApiKey.DELETE_RECORDS, version, cut("shortened", version + 1))
    side.newest("again", ApiKey.DELETE_RECORDS, cut("shortened", 2))
    side.newest("behind the end", ApiKey.DELETE_RECORDS, cut("shortened", 99))
    side.newest("-2", ApiKey.DELETE_RECORDS, cut("shortened", -2))
    side.newest("unknown topic", ApiKey.DELETE_RECORDS, cut("never-there", 1))
    side.newest("unknown partition", ApiKey.DELETE_RECORDS, cut("shortened", 1, partition=9))
    side.newest("none", ApiKey.DELETE_RECORDS, dr.DeleteRecordsRequest(timeout_ms=30_000))
    side.newest("after deletion: earliest", ApiKey.LIST_OFFSETS, listing("shortened", -2))
    side.newest("all", ApiKey.DELETE_RECORDS, cut("shortened", -1))
    side.newest("after deletion: latest", ApiKey.LIST_OFFSETS, listing("shortened", -1))
    side.newest("after deletion: by time", ApiKey.LIST_OFFSETS, listing("shortened", 0))
    side.newest("after deletion: max timestamp", ApiKey.LIST_OFFSETS, listing("shortened", -3))

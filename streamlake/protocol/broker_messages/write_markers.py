"""WriteMarkers (20002), version 0: a transaction coordinator has its transactions ended in the partitions led here.

Kafka's WriteTxnMarkers with what it lacks: the number of each transaction within its transactional id, so that a marker
that comes late never ends the next transaction of the same producer epoch. Repeats do no harm.
"""

from typing import Annotated
from uuid import UUID

from msgspec import Struct


class MarkerTopic(Struct, frozen=True):
    topic_id: Annotated[UUID | None, "uuid 0+"] = None
    partitions: Annotated[tuple[int, ...], "[]int32 0+"] = ()


class Marker(Struct, frozen=True):
    producer_id: Annotated[int, "int64 0+"] = -1
    producer_epoch: Annotated[int, "int16 0+"] = -1
    number: Annotated[int, "int64 0+"] = -1
    coordinator_epoch: Annotated[int, "int32 0+"] = -1  # of the slot
    commit: Annotated[bool, "bool 0+"] = False
    transaction_version: Annotated[int, "int8 0+"] = 0
    topics: Annotated[tuple[MarkerTopic, ...], "[]struct 0+"] = ()


class WriteMarkersRequest(Struct, frozen=True):
    markers: Annotated[tuple[Marker, ...], "[]struct 0+"] = ()


class PartitionResult(Struct, frozen=True):
    index: Annotated[int, "int32 0+"] = 0
    error_code: Annotated[int, "int16 0+"] = 0


class TopicResult(Struct, frozen=True):
    topic_id: Annotated[UUID | None, "uuid 0+"] = None
    partitions: Annotated[tuple[PartitionResult, ...], "[]struct 0+"] = ()


class MarkerResult(Struct, frozen=True):
    """In the order of the request's markers."""

    topics: Annotated[tuple[TopicResult, ...], "[]struct 0+"] = ()


class WriteMarkersResponse(Struct, frozen=True):
    markers: Annotated[tuple[MarkerResult, ...], "[]struct 0+"] = ()


KEY = 20_002
VERSIONS = range(1)
FLEXIBLE_FROM = 0
REQUEST = WriteMarkersRequest
RESPONSE = WriteMarkersResponse

"""Any request in any version to a real server, and helpers for what most tests of handlers begin with."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from msgspec import Struct
from support.raw_kafka import RawClient

from streamlake.handlers.apis import HANDLERS
from streamlake.protocol.messages import ApiKey, create_topics, fetch, join_group, produce, sync_group
from streamlake.protocol.requests import api, correlation_id_of, decode_response, encode_request

SERVED = {h.api.key: h.api.versions for h in HANDLERS}
_numbers = itertools.count()


def ends(key: ApiKey) -> list[int]:
    """The oldest and the newest version that is served."""
    return [SERVED[key][0], SERVED[key][-1]]


def newest(key: ApiKey) -> int:
    return SERVED[key][-1]


@dataclass(frozen=True)
class Topic:
    name: str
    id: UUID


@dataclass(frozen=True)
class Member:
    group: str
    id: str
    generation: int


class Client(RawClient):
    """`ask` is a request and its answer. `post` several and then take each `answer`: they are pipelined."""

    def post(self, key: ApiKey, version: int, request: Struct, correlation_id: int = 1) -> None:
        self.send(encoded(key, version, request, correlation_id))

    def answer(self, key: ApiKey, version: int, correlation_id: int = 1) -> Any:
        frame = self.read_answer()
        if frame is None:
            raise ConnectionError("the server closed the connection")
        assert correlation_id_of(frame) == correlation_id
        return decode_response(api(key), version, frame)

    def ask(self, key: ApiKey, version: int, request: Struct) -> Any:
        self.post(key, version, request)
        return self.answer(key, version)

    def newest(self, key: ApiKey, request: Struct) -> Any:
        return self.ask(key, newest(key), request)

    # -- what most tests begin with ----------------------------------------------------------------------------------

    def create_topic(self, partitions: int = 1, **configs: str) -> Topic:
        """A topic of its own; underscores in the names of `configs` are dots."""
        given = [create_topics.CreatableTopicConfig(name=k.replace("_", "."), value=v) for k, v in configs.items()]
        topic = create_topics.CreatableTopic(
            name=f"topic-{next(_numbers)}", num_partitions=partitions, replication_factor=1, configs=tuple(given)
        )
        (result,) = self.newest(ApiKey.CREATE_TOPICS, create_topics.CreateTopicsRequest(topics=(topic,))).topics
        assert result.error_code == 0, result
        return Topic(result.name, result.topic_id)

    def append(self, topic: Topic, *batches: bytes, partition: int = 0) -> list[int]:
        """Batches that are expected to be taken; their base offsets."""
        answers = [self.produce(topic.name, records, partition) for records in batches]
        assert all(a.error_code == 0 for a in answers), answers
        return [a.base_offset for a in answers]

    def join(self, group: str, instance: str | None = None, timeout_ms: int = 600_000) -> Member:
        """Become a member, as version 9 does it: learn the id first. Answered when the rebalance is over."""
        answer = self.newest(ApiKey.JOIN_GROUP, join_request(group, "", instance, timeout_ms))
        if answer.error_code:
            answer = self.newest(ApiKey.JOIN_GROUP, join_request(group, answer.member_id, instance, timeout_ms))
        assert answer.error_code == 0, answer
        return Member(group, answer.member_id, answer.generation_id)

    def join_alone(self, group: str, instance: str | None = None) -> Member:
        """The only member of a group that is Stable."""
        member = self.join(group, instance)
        answer = self.newest(ApiKey.SYNC_GROUP, sync_request(member, {member.id: b"all"}, instance))
        assert (answer.error_code, answer.assignment) == (0, b"all")
        return member


def encoded(key: ApiKey, version: int, request: Struct, correlation_id: int = 1) -> bytes:
    """A whole request as it goes over the wire."""
    return b"".join(encode_request(api(key), version, correlation_id, "tester", request))


def produce_request(
    topic: Topic, batches: Mapping[int, bytes | None], acks: int = -1, **fields: Any
) -> produce.ProduceRequest:
    """By name and by id: the version decides which of both is sent."""
    data = tuple(produce.PartitionProduceData(index=i, records=records) for i, records in batches.items())
    topics = (produce.TopicProduceData(name=topic.name, topic_id=topic.id, partition_data=data),)
    return produce.ProduceRequest(acks=acks, timeout_ms=20_000, topic_data=topics, **fields)


def fetch_topic(topic: Topic, *partitions: fetch.FetchPartition) -> fetch.FetchTopic:
    return fetch.FetchTopic(topic=topic.name, topic_id=topic.id, partitions=partitions)


def fetch_partition(offset: int = 0, index: int = 0, max_bytes: int = 1 << 20, **fields: Any) -> fetch.FetchPartition:
    return fetch.FetchPartition(partition=index, fetch_offset=offset, partition_max_bytes=max_bytes, **fields)


def join_request(
    group: str, member_id: str, instance: str | None = None, timeout_ms: int = 600_000, **fields: Any
) -> join_group.JoinGroupRequest:
    values: dict[str, Any] = {
        "group_id": group,
        "member_id": member_id,
        "group_instance_id": instance,
        "session_timeout_ms": timeout_ms,
        "rebalance_timeout_ms": timeout_ms,
        "protocol_type": "consumer",
        "protocols": (join_group.JoinGroupRequestProtocol(name="range", metadata=b"topics"),),
    }
    return join_group.JoinGroupRequest(**(values | fields))


def sync_request(
    member: Member, assignments: Mapping[str, bytes], instance: str | None = None, **fields: Any
) -> sync_group.SyncGroupRequest:
    values: dict[str, Any] = {
        "group_id": member.group,
        "generation_id": member.generation,
        "member_id": member.id,
        "group_instance_id": instance,
        "protocol_type": "consumer",
        "protocol_name": "range",
        "assignments": tuple(
            sync_group.SyncGroupRequestAssignment(member_id=m, assignment=a) for m, a in assignments.items()
        ),
    }
    return sync_group.SyncGroupRequest(**(values | fields))


def codes(results: Sequence[Any]) -> list[int]:
    return [result.error_code for result in results]

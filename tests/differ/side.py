"""One broker under test: asks it, and keeps every answer under a label, in a form that can be compared.

`plain` turns an answer into dicts and values. What must differ between two brokers is replaced by a word ("<uuid>"); rows
of an array are named by their key instead of their place, because Kafka's own order comes from hash tables.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from msgspec import Struct
from support.wire import SERVED, Client, Topic, codes, encoded

from streamlake.protocol.fields import fields_at
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages import create_topics as creation
from streamlake.protocol.messages import list_offsets as lo
from streamlake.protocol.messages import metadata as md
from streamlake.protocol.requests import api, decode_response

SETTLE_TIMEOUT_S = 60.0
CLOSED = "connection closed"
NO_ANSWER = "no answer"

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_KEYS = (
    "api_key", "name", "topic", "group_id", "resource_name", "partition_index", "partition_id", "partition", "index",
    "member_id",
    "group_instance_id", "key", "node_id", "broker_id", "topic_id", "topic_name", "replica_id", "user", "feature",
)  # fmt: skip
_DROPPED = {"throttle_time_ms"}
_NUMBERS = {"producer_id": "<id>", "session_id": "<id>", "log_append_time_ms": "<ms>", "port": "<port>"}
_TEXTS = {
    "host": "<host>",
    "cluster_id": "<cluster>",
    "log_dir": "<directory>",
    "error_message": "<text>",
    "documentation": "<text>",
}

Answers = dict[str, Any]


class Side:
    """`ask` is compared with the other side's answer of the same label; `quietly` is what a scenario needs before."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: Answers = {}
        self._names: dict[UUID, str] = {}
        self._client = Client(port)

    def close(self) -> None:
        self._client.close()

    # -- asking --------------------------------------------------------------------------------------------------------

    def ask(self, note: str, key: ApiKey, version: int, request: Struct) -> Any:
        """The answer, decoded; None if the connection was closed instead."""
        return self._keep(note, key, version, encoded(key, version, request))

    def newest(self, note: str, key: ApiKey, request: Struct) -> Any:
        return self.ask(note, key, SERVED[key][-1], request)

    def every(self, note: str, key: ApiKey, request: Struct, versions: Iterable[int] | None = None) -> list[Any]:
        """In each version that StreamLake serves, or in these."""
        return [self.ask(note, key, version, request) for version in versions or SERVED[key]]

    def raw(self, note: str, key: ApiKey, version: int, frame: bytes, answered_in: int | None = None) -> Any:
        """Bytes that no codec would write."""
        return self._keep(note, key, version, frame, version if answered_in is None else answered_in)

    def quietly(self, key: ApiKey, request: Struct, version: int | None = None) -> Any:
        version = SERVED[key][-1] if version is None else version
        frame = self._exchange(encoded(key, version, request))
        assert frame is not None, f"{key.name} v{version}: the connection was closed"
        return decode_response(api(key), version, frame)

    def _keep(self, note: str, key: ApiKey, version: int, frame: bytes, answered_in: int | None = None) -> Any:
        label = f"{key.name.lower()}/v{version}/{note}"
        assert label not in self.answers, f"two requests are called {label!r}"
        try:
            answer = self._exchange(frame)
        except TimeoutError:
            self.answers[label] = NO_ANSWER
            self._reconnect()
            return None
        if answer is None:
            self.answers[label] = CLOSED
            return None
        known = version if answered_in is None else answered_in
        response = decode_response(api(key), known, answer)
        self.answers[label] = self.plain(response, known)
        return response

    def _exchange(self, frame: bytes) -> bytes | None:
        self._client.send(frame)
        answer = self._client.read_answer()
        if answer is None:
            self._reconnect()
        return answer

    def _reconnect(self) -> None:
        self._client.close()
        self._client = Client(self.port)

    # -- what scenarios begin with -------------------------------------------------------------------------------------

    def topic(self, name: str, partitions: int = 1, **configs: str) -> Topic:
        """A new topic whose partitions all have a leader; underscores in the names of `configs` are dots."""
        given = tuple(creation.CreatableTopicConfig(k.replace("_", "."), v) for k, v in configs.items())
        wanted = creation.CreatableTopic(name=name, num_partitions=partitions, replication_factor=1, configs=given)
        (result,) = self.quietly(ApiKey.CREATE_TOPICS, creation.CreateTopicsRequest(topics=(wanted,))).topics
        assert result.error_code == 0, result
        return self.settled(name, partitions)

    def settled(self, name: str, partitions: int) -> Topic:
        """A topic, once it has that many partitions with leaders that know of it: Kafka's brokers hear of changes
        later, and their parts one after the other."""

        def ready(topic: md.MetadataResponseTopic) -> bool:
            led = [p for p in topic.partitions if p.error_code == 0 and p.leader_id >= 0]
            return topic.error_code == 0 and len(led) == partitions

        found = self._until(name, ready)
        assert found.topic_id is not None
        rows = tuple(lo.ListOffsetsPartition(partition_index=p, timestamp=-1) for p in range(partitions))
        ends = lo.ListOffsetsRequest(replica_id=-1, topics=(lo.ListOffsetsTopic(name=name, partitions=rows),))
        self.wait(
            lambda: not any(codes(self.quietly(ApiKey.LIST_OFFSETS, ends).topics[0].partitions)), f"{name} is led"
        )
        self._names[found.topic_id] = name
        return Topic(name, found.topic_id)

    def gone(self, name: str) -> None:
        self._until(name, lambda topic: topic.error_code == 3)

    def _until(self, name: str, ready: Callable[[md.MetadataResponseTopic], bool]) -> md.MetadataResponseTopic:
        request = md.MetadataRequest(topics=(md.MetadataRequestTopic(name=name),), allow_auto_topic_creation=False)
        found: list[md.MetadataResponseTopic] = []

        def asked() -> bool:
            found[:] = self.quietly(ApiKey.METADATA, request).topics
            return ready(found[0])

        self.wait(asked, f"{name} settles")
        return found[0]

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {SETTLE_TIMEOUT_S:.0f} s: {what}")
            time.sleep(0.05)

    # -- comparing -----------------------------------------------------------------------------------------------------

    def plain(self, value: Any, version: int, name: str = "") -> Any:
        match value:
            case Struct():
                fields = [f for f in fields_at(type(value), version) if f.name not in _DROPPED]
                if getattr(value, "error_code", 0):  # every broker words its errors in its own way, or not at all
                    fields = [f for f in fields if f.name != "error_message"]
                return {f.name: self.plain(getattr(value, f.name), version, f.name) for f in fields}
            case UUID():
                return f"<id of {self._names[value]}>" if value in self._names else "<uuid>"
            case bytes() | bytearray() | memoryview():
                return bytes(value).hex()
            case bool() | None:
                return value
            case int():
                return _NUMBERS[name] if value >= (name != "producer_id") and name in _NUMBERS else value
            case str():
                return _TEXTS[name] if name in _TEXTS and value else _UUID.sub("<uuid>", value)
            case tuple() | list():
                rows = [self.plain(row, version, name) for row in value]
                return _keyed(rows) if rows and isinstance(rows[0], Mapping) else rows
        return value


def _keyed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows by the value of their first field that is a key; of equal ones each but the first has its number."""
    keyed: dict[str, Any] = {}
    for row in rows:
        key = str(next((row[k] for k in _KEYS if k in row), "row"))
        number = 1
        while (at := key if number == 1 else f"{key}#{number}") in keyed:
            number += 1
        keyed[at] = row
    return keyed

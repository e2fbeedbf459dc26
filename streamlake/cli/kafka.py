"""A Kafka cluster as commands see it: the first broker of --bootstrap that answers, and the leaders that it names."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Self, TypeVar

from msgspec import Struct

from streamlake.cli.addresses import brokers
from streamlake.core.errors import Invalid, NotFound, StreamLakeError, Unavailable
from streamlake.peers.kafka import KafkaPeer
from streamlake.peers.offsets import list_offsets
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponseTopic

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 30.0
METADATA_VERSION = 12

T = TypeVar("T")


class Cluster:
    """`async with Cluster(bootstrap) as cluster`. Unavailable says which brokers did not answer, and why."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._peers: dict[tuple[str, int], KafkaPeer] = {}
        self._first: KafkaPeer

    async def __aenter__(self) -> Self:
        failures = []
        for host, port in brokers(self._bootstrap):
            peer = self._peer(host, port)
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await peer.call(ApiKey.METADATA, MetadataRequest(topics=()), METADATA_VERSION)
            except (TimeoutError, StreamLakeError) as error:
                failures.append(f"{peer.address}: {_reason(error)}")
                continue
            self._first = peer
            return self
        await self.close()
        raise Unavailable(
            f"no Kafka broker answers ({'; '.join(failures)}): start one with `streamlake server`, or give --bootstrap"
        )

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        for peer in self._peers.values():
            await peer.close()

    async def call(self, key: ApiKey, request: Struct, max_version: int) -> Any:
        return await self._first.call(key, request, max_version)

    async def describe(self, topic: str) -> MetadataResponseTopic:
        """The topic's metadata. NotFound; it is not made by asking."""
        return (await self._metadata(topic))[0]

    async def leaders(self, topic: str) -> dict[int, KafkaPeer | None]:
        """Partition → its leader, or None if it has none at the moment. NotFound."""
        described, addresses = await self._metadata(topic)
        found: dict[int, KafkaPeer | None] = {}
        for partition in sorted(described.partitions, key=lambda p: p.partition_index):
            address = addresses.get(partition.leader_id)
            found[partition.partition_index] = self._peer(*address) if address else None
        return found

    async def offsets(self, topic: str, partitions: Iterable[int], timestamp: int) -> dict[int, int]:
        """The first offset at or after `timestamp` (ms; or LATEST, EARLIEST) of each partition; -1 if there is none."""
        leaders, asked = await self.leaders(topic), sorted(partitions)
        found: dict[int, int] = {}
        for peer in dict.fromkeys(leaders[p] for p in asked):
            own = [p for p in asked if leaders[p] is peer]
            if peer is None:
                raise Unavailable(f"topic {topic}: partition {own[0]} has no leader at the moment: try again")
            found |= await self._offsets_of(peer, topic, own, timestamp)
        return found

    async def _offsets_of(self, peer: KafkaPeer, topic: str, partitions: Sequence[int], at: int) -> dict[int, int]:
        found = {}
        for partition in await list_offsets(peer.call, topic, partitions, at):
            check(f"topic {topic}, partition {partition.partition_index}", partition.error_code)
            found[partition.partition_index] = partition.offset
        return found

    async def _metadata(self, topic: str) -> tuple[MetadataResponseTopic, dict[int, tuple[str, int]]]:
        request = MetadataRequest(topics=(MetadataRequestTopic(name=topic),), allow_auto_topic_creation=False)
        answer = await self.call(ApiKey.METADATA, request, METADATA_VERSION)
        (described,) = answer.topics
        check(f"topic {topic}", described.error_code)
        return described, {b.node_id: (b.host, b.port) for b in answer.brokers}

    def _peer(self, host: str, port: int) -> KafkaPeer:
        peer = self._peers.get((host, port))
        if peer is None:
            peer = self._peers[host, port] = KafkaPeer(host, port, "streamlake-cli", REQUEST_TIMEOUT_S)
        return peer


def ask(bootstrap: str, question: Callable[[Cluster], Awaitable[T]]) -> T:
    """One question, from a command that is no coroutine."""

    async def run() -> T:
        async with Cluster(bootstrap) as cluster:
            return await question(cluster)

    return asyncio.run(run())


def check(what: str, code: int, message: str | None = None) -> None:
    """Raise what an error code of an answer means to a person: NotFound, Unavailable or Invalid.

    A broker's own `message` mostly names the thing already."""
    if not code:
        return
    name = what.rpartition(" ")[2]
    if code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
        told = message if message and name in message else f"{what} does not exist"
        raise NotFound(f"{told}: `streamlake topic list` shows what there is")
    known = code in set(ErrorCode)
    words = message or (ErrorCode(code).message if known else f"error code {code}")
    text = words if name in words else f"{what}: {words}"
    raise (Unavailable if known and ErrorCode(code).retriable else Invalid)(text)


def _reason(error: BaseException) -> str:
    """Why a broker could not be asked, without its address, which is said already."""
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT_S:g} s"
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)
    return str(error)

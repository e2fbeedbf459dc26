"""The client against a tiny server that speaks through our own codec, and misbehaves on demand."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from msgspec import Struct
from support.wait import DEADLINE_S

from streamlake.core.errors import Closed, Full, Invalid, Unavailable
from streamlake.peers.kafka import KafkaPeer
from streamlake.protocol.messages import ApiKey, api_versions, create_topics, fetch, list_offsets, metadata
from streamlake.protocol.requests import Call, api, encode_response, parse
from streamlake.protocol.wire import Malformed

APIS = {
    key: api(key)
    for key in (ApiKey.API_VERSIONS, ApiKey.METADATA, ApiKey.FETCH, ApiKey.LIST_OFFSETS, ApiKey.CREATE_TOPICS)
}
SERVED = {ApiKey.API_VERSIONS: (0, 4), ApiKey.METADATA: (0, 7), ApiKey.FETCH: (4, 12), ApiKey.LIST_OFFSETS: (40, 41)}
RECORDS = bytes(range(256)) * 1000


class Server:
    """Answers what it knows; `answer` can be replaced, and may return None (no answer), bytes (raw), or raise."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.connections = 0
        self.answer: Callable[[Call], Struct | bytes | None] = self.answer_well
        self.got_call = asyncio.Event()
        self.lost_connection = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        self.drop_connections()
        await self._server.wait_closed()

    def drop_connections(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                call = parse(APIS, await reader.readexactly(size))
                self.calls.append(call)
                answer = self.answer_well(call) if call.api.key == ApiKey.API_VERSIONS else self.answer(call)
                if isinstance(answer, bytes):
                    writer.write(answer)
                elif answer is not None:
                    writer.writelines(encode_response(call, answer))
                self.got_call.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.lost_connection.set()
            writer.close()

    def answer_well(self, call: Call) -> Struct:
        if call.api.key == ApiKey.API_VERSIONS:
            keys = (api_versions.ApiVersion(api_key=k, min_version=a, max_version=b) for k, (a, b) in SERVED.items())
            return api_versions.ApiVersionsResponse(api_keys=tuple(keys))
        if call.api.key == ApiKey.FETCH:
            partition = fetch.PartitionData(partition_index=3, high_watermark=9, records=RECORDS)
            return fetch.FetchResponse(responses=(fetch.FetchableTopicResponse(topic="t", partitions=(partition,)),))
        topics = call.request.topics or ()
        return metadata.MetadataResponse(topics=tuple(metadata.MetadataResponseTopic(name=t.name) for t in topics))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def peer(server: Server) -> AsyncIterator[KafkaPeer]:
    async with KafkaPeer("127.0.0.1", server.port, "test", request_timeout_s=DEADLINE_S) as peer:
        yield peer


def ask(name: str) -> metadata.MetadataRequest:
    return metadata.MetadataRequest(topics=(metadata.MetadataRequestTopic(name=name),))


async def test_a_call_takes_the_newest_common_version(server: Server, peer: KafkaPeer) -> None:
    await peer.call(ApiKey.METADATA, ask("a"), max_version=99)
    await peer.call(ApiKey.METADATA, ask("a"), max_version=5)
    handshake, newest, capped = server.calls
    assert (handshake.api.key, handshake.version, handshake.client_id) == (ApiKey.API_VERSIONS, 0, "test")
    assert (newest.version, capped.version) == (7, 5)
    assert server.connections == 1


async def test_calls_are_pipelined_and_get_their_own_answers(server: Server, peer: KafkaPeer) -> None:
    answers = await asyncio.gather(*(peer.call(ApiKey.METADATA, ask(f"t{i}"), 7) for i in range(50)))
    assert [a.topics[0].name for a in answers] == [f"t{i}" for i in range(50)]
    assert server.connections == 1


async def test_records_are_a_view_of_the_frame(peer: KafkaPeer) -> None:
    answer = await peer.call(ApiKey.FETCH, fetch.FetchRequest(), max_version=12)
    records = answer.responses[0].partitions[0].records
    assert isinstance(records, memoryview) and records == RECORDS and records.readonly


async def test_no_common_version_is_invalid(peer: KafkaPeer) -> None:
    with pytest.raises(Invalid, match="serves the versions 40 to 41"):
        await peer.call(ApiKey.LIST_OFFSETS, list_offsets.ListOffsetsRequest(), 7)
    with pytest.raises(Invalid, match="does not serve create_topics"):
        await peer.call(ApiKey.CREATE_TOPICS, create_topics.CreateTopicsRequest(), 7)


async def test_a_lost_connection_is_unavailable_and_opened_again(server: Server, peer: KafkaPeer) -> None:
    await peer.call(ApiKey.METADATA, ask("a"), 7)
    server.answer = lambda call: server.drop_connections()
    with pytest.raises(Unavailable, match="closed the connection"):
        await peer.call(ApiKey.METADATA, ask("a"), 7)
    server.answer = server.answer_well
    assert (await peer.call(ApiKey.METADATA, ask("b"), 7)).topics[0].name == "b"
    assert server.connections == 2


async def test_a_refused_connection_is_unavailable(server: Server, peer: KafkaPeer) -> None:
    await server.stop()
    with pytest.raises(Unavailable, match="cannot connect"):
        await peer.call(ApiKey.METADATA, ask("a"), 7)


async def test_silence_closes_the_connection_for_all(server: Server) -> None:
    server.answer = lambda call: None
    async with KafkaPeer("127.0.0.1", server.port, "test", request_timeout_s=0.2) as peer:
        calls = [peer.call(ApiKey.METADATA, ask("a"), 7) for _ in range(3)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(o, Unavailable) for o in outcomes)
        await asyncio.wait_for(server.lost_connection.wait(), DEADLINE_S)


async def test_a_silent_handshake_times_out() -> None:
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    async with KafkaPeer("127.0.0.1", silent.sockets[0].getsockname()[1], "test", request_timeout_s=0.1) as peer:
        with pytest.raises(Unavailable, match="did not answer metadata"):
            await peer.call(ApiKey.METADATA, ask("a"), 7)
    silent.close()


async def test_a_caller_that_stops_waiting_disturbs_nobody(server: Server, peer: KafkaPeer) -> None:
    server.answer = lambda call: None
    impatient = asyncio.create_task(peer.call(ApiKey.METADATA, ask("a"), 7))
    while len(server.calls) < 2:
        server.got_call.clear()
        await server.got_call.wait()
    impatient.cancel()
    late = b"".join(encode_response(server.calls[1], metadata.MetadataResponse()))
    server.answer = lambda call: late + b"".join(encode_response(call, server.answer_well(call)))
    assert (await peer.call(ApiKey.METADATA, ask("b"), 7)).topics[0].name == "b"
    assert impatient.cancelled() and server.connections == 1


@pytest.mark.parametrize(
    "junk",
    [
        struct.pack(">i", -5),
        struct.pack(">i", 2**31 - 1),
        struct.pack(">ii", 4, 999),  # nobody's answer
        struct.pack(">ii", 4, 1),  # an answer without a message
        struct.pack(">i", 2) + b"ab",
    ],
)
async def test_junk_is_malformed(server: Server, peer: KafkaPeer, junk: bytes) -> None:
    server.answer = lambda call: junk
    with pytest.raises(Malformed):
        await peer.call(ApiKey.METADATA, ask("a"), 7)
    server.answer = server.answer_well
    await peer.call(ApiKey.METADATA, ask("a"), 7)


async def test_an_answer_to_another_request_is_malformed(server: Server, peer: KafkaPeer) -> None:
    def answer(call: Call) -> bytes:
        other = msgspec.structs.replace(call, correlation_id=call.correlation_id + 1)
        return b"".join(encode_response(other, server.answer_well(call)))

    server.answer = answer
    with pytest.raises(Malformed, match="not the next to be answered"):
        await peer.call(ApiKey.METADATA, ask("a"), 7)


async def test_the_number_in_flight_is_limited(server: Server) -> None:
    server.answer = lambda call: None
    async with KafkaPeer("127.0.0.1", server.port, "test", 20, max_in_flight=2) as peer:
        waiting = [asyncio.create_task(peer.call(ApiKey.METADATA, ask("a"), 7)) for _ in range(2)]
        while len(server.calls) < 3:
            server.got_call.clear()
            await server.got_call.wait()
        with pytest.raises(Full, match="2 requests wait"):
            await peer.call(ApiKey.METADATA, ask("a"), 7)
        await peer.close()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(o, Closed) for o in outcomes)


async def test_a_closed_peer_stays_closed(server: Server, peer: KafkaPeer) -> None:
    await peer.close()
    with pytest.raises(Closed):
        await peer.call(ApiKey.METADATA, ask("a"), 7)
    assert server.connections == 0

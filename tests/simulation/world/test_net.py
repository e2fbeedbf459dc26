import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from simulation.world.chance import Latency
from simulation.world.link import SimTransport
from simulation.world.loop import SimLoop, current_process
from simulation.world.net import WILD, NetFaults, SimNet
from simulation.world.process import Process

from streamlake.core.errors import Unavailable
from streamlake.handlers.apis import Handler
from streamlake.peers.kafka import KafkaPeer
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.api_versions import (
    ApiVersion,
    ApiVersionsResponse,
)
from streamlake.protocol.messages.sync_group import SyncGroupRequest, SyncGroupResponse
from streamlake.protocol.requests import api
from streamlake.server.listener import Listener
from streamlake.server.memory import ConnectionMemory

CALM = NetFaults(end_delay=Latency(0.002))
CHOPPY = replace(CALM, split_rate=0.7, part_rate=0.7, window_bytes=1000, latency=Latency(0.001, 0.2, 0.5))
Main = Callable[[SimLoop, SimNet], Coroutine[Any, Any, Any]]


def in_net(main: Main, faults: NetFaults = CALM, seed: int = 1) -> Any:
    loop = SimLoop(seed)
    try:
        result = loop.run_until_complete(main(loop, SimNet(loop, faults)))
        assert not loop.failures
        return result
    finally:
        loop.close()


class Recorder(asyncio.Protocol):
    """Keeps what happens to it, and checks that it happens in its own process."""

    def __init__(self, process: Process | None = None) -> None:
        self.process = process
        self.received = b""
        self.pieces = 0
        self.events: list[str] = []
        self.transport: Any = None
        self.error: Exception | None = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert current_process() is self.process
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert current_process() is self.process
        assert not self.lost.done()
        self.received += data
        self.pieces += 1

    def eof_received(self) -> None:
        self.events.append("eof")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        assert current_process() is self.process
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        assert current_process() is self.process
        self.error = exc
        self.lost.set_result(None)


async def pair(loop: SimLoop, net: SimNet) -> tuple[Recorder, Recorder, Process, Process]:
    """A client's protocol on host a, a server's on host b, connected."""
    client, server = Process(loop, "client", "a"), Process(loop, "server", "b")
    made: list[Recorder] = []

    def accept() -> Recorder:
        made.append(Recorder(server))
        return made[-1]

    async def serve() -> None:
        await loop.create_server(accept, sock=net.bind("b", 9092))

    async def connect() -> None:
        made.insert(0, (await loop.create_connection(lambda: Recorder(client), "b", 9092))[1])

    server.start(serve())
    await asyncio.sleep(0.1)
    client.start(connect())
    await asyncio.sleep(5)
    return made[0], made[1], client, server


@pytest.mark.parametrize("seed", range(20))
def test_bytes_arrive_whole_and_in_order_however_they_are_cut(seed: int) -> None:
    async def main(loop: SimLoop, net: SimNet) -> int:
        client, server, *_ = await pair(loop, net)
        random = Random(seed)
        sent = [random.randbytes(random.choice((1, 10, 3000))) for _ in range(60)]
        for at in range(0, 60, 3):
            client.transport.writelines(sent[at : at + 3])
            if random.random() < 0.5:
                await asyncio.sleep(random.random() / 100)
        client.transport.close()
        await server.lost
        assert server.received == b"".join(sent)
        assert server.error is None
        assert server.events == ["eof"]
        await client.lost
        assert client.error is None
        return server.pieces

    assert in_net(main, CHOPPY, seed) > 60


def test_names_and_ports() -> None:
    async def main(loop: SimLoop, net: SimNet) -> None:
        client, server, _, process = await pair(loop, net)
        assert client.transport.get_extra_info("peername") == ("b", 9092)
        assert server.transport.get_extra_info("peername") == client.transport.get_extra_info("sockname")
        assert server.transport.get_extra_info("peername")[0] == "a"
        with pytest.raises(OSError, match="in use"):
            net.bind("b", 9092)
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(asyncio.Protocol, "b", 1)
        process.kill()
        net.bind("b", 9092).close()
        assert net.bind("b").getsockname()[1] != net.bind("b").getsockname()[1]

    in_net(main)


def test_a_receiver_that_does_not_read_pauses_the_sender() -> None:
    async def main(loop: SimLoop, net: SimNet) -> None:
        client, server, *_ = await pair(loop, net)
        server.transport.pause_reading()
        client.transport.set_write_buffer_limits(high=5000)
        client.transport.write(bytes(4000))
        await asyncio.sleep(20)
        assert client.transport.get_write_buffer_size() == 3000, "the window is full, the rest waits in the transport"
        assert client.events == []
        client.transport.write(bytes(4000))
        assert client.events == ["pause"]
        assert server.received == b""
        server.transport.resume_reading()
        await asyncio.sleep(60)
        assert client.events == ["pause", "resume"]
        assert len(server.received) == 8000

    in_net(main, replace(CALM, window_bytes=1000))


def test_what_is_changed_after_write_leaves_changed() -> None:
    """As with uvloop: so code that reuses a buffer is caught (hazard C7)."""

    async def main(loop: SimLoop, net: SimNet) -> None:
        client, server, *_ = await pair(loop, net)
        buffer = bytearray(b"old")
        client.transport.write(buffer)
        buffer[:] = b"new"
        await asyncio.sleep(1)
        assert server.received == b"new"

    in_net(main)


def test_close_sends_what_was_written_and_abort_does_not() -> None:
    async def main(loop: SimLoop, net: SimNet) -> None:
        for end in ("close", "abort"):
            client, server, _, process = await pair(loop, net)
            server.transport.pause_reading()
            client.transport.write(bytes(5000))
            await asyncio.sleep(10)
            getattr(client.transport, end)()
            assert client.transport.is_closing()
            server.transport.resume_reading()
            await server.lost
            if end == "close":
                assert (len(server.received), server.error) == (5000, None)
            else:
                assert len(server.received) < 5000
                assert isinstance(server.error, ConnectionResetError)
            process.kill()

    in_net(main, replace(CALM, window_bytes=1000))


def test_writing_to_a_peer_that_closed_is_a_reset() -> None:
    async def main(loop: SimLoop, net: SimNet) -> None:
        client, server, *_ = await pair(loop, net)
        server.transport.pause_reading()
        client.transport.write(b"unread")
        await asyncio.sleep(1)
        server.transport.close()
        await client.lost
        assert isinstance(client.error, ConnectionResetError)

    in_net(main)


def test_a_killed_process_sends_what_left_it_and_then_its_connections_end() -> None:
    async def main(loop: SimLoop, net: SimNet) -> tuple[int, str]:
        client, server, client_process, _ = await pair(loop, net)
        client.transport.write(bytes(5000))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the kernel has the first part of it
        client_process.kill()
        await server.lost
        assert not client.lost.done()
        return len(server.received), type(server.error).__name__

    ends = {in_net(main, replace(CALM, window_bytes=1000), seed) for seed in range(20)}
    assert ends == {(1000, "NoneType"), (1000, "ConnectionResetError")}


def test_a_paused_process_is_connected_to_and_hears_it_all_later() -> None:
    async def main(loop: SimLoop, net: SimNet) -> None:
        client, server, _, process = await pair(loop, net)
        process.pause()
        client.transport.write(b"one")
        _, another = await loop.create_connection(Recorder, "b", 9092)
        another.transport.write(b"two")
        await asyncio.sleep(10)
        assert server.received == b""
        process.resume()
        await asyncio.sleep(1)
        assert server.received == b"one"

    in_net(main)


@pytest.mark.parametrize("both", [True, False])
def test_a_partition_holds_bytes_and_a_heal_delivers_them(both: bool) -> None:
    async def main(loop: SimLoop, net: SimNet) -> None:
        client, server, *_ = await pair(loop, net)
        net.partition("a", "b", both=both)
        client.transport.write(b"to b")
        server.transport.write(b"to a")
        await asyncio.sleep(30)
        assert server.received == b""
        assert client.received == (b"" if both else b"to a")
        client.transport.write(b", more")
        net.heal("a", "b")
        await asyncio.sleep(1)
        assert server.received == b"to b, more"
        assert client.received == b"to a"

    in_net(main)


def test_a_long_partition_resets_at_both_ends() -> None:
    async def main(loop: SimLoop, net: SimNet) -> None:
        client, server, *_ = await pair(loop, net)
        net.partition("a", "b")
        client.transport.write(b"lost")
        await asyncio.sleep(100)
        assert isinstance(client.error, ConnectionResetError)
        assert isinstance(server.error, ConnectionResetError)
        assert server.received == b""

    in_net(main)


def test_connecting_over_a_partition_hangs_or_is_unreachable() -> None:
    async def connect(loop: SimLoop) -> str:
        process = current_process()
        try:
            async with asyncio.timeout(10):
                await loop.create_connection(lambda: Recorder(process), "b", 9092)
        except TimeoutError:
            return "hangs"
        except OSError as error:
            return type(error).__name__
        return "connected"

    async def main(loop: SimLoop, net: SimNet) -> set[str]:
        _, _, client, _ = await pair(loop, net)
        found: list[str] = []

        async def attempt() -> None:
            found.append(await connect(loop))

        net.partition("a", "b")
        for _ in range(30):
            client.start(attempt())
        await asyncio.sleep(20)
        outcomes, found[:] = set(found), []
        net.heal()
        client.start(attempt())
        await asyncio.sleep(5)
        assert found == ["connected"]
        return outcomes

    assert in_net(main) == {"hangs", "OSError"}


def test_a_host_without_power_falls_silent() -> None:
    async def main(loop: SimLoop, net: SimNet) -> None:
        client, _, _, server = await pair(loop, net)
        net.power_off("b")
        server.kill()
        await asyncio.sleep(20)
        assert not client.lost.done()
        net.power_on("b")
        await asyncio.sleep(2)
        assert client.lost.done()

    in_net(main)


def test_fate_strikes_in_the_middle_of_a_message() -> None:
    ends = []
    for seed in range(60):

        async def main(loop: SimLoop, net: SimNet) -> tuple[int, bool]:
            client, server, *_ = await pair(loop, net)
            client.transport.write(bytes(50_000))
            await asyncio.sleep(100)
            assert server.received == bytes(len(server.received))
            assert client.lost.done() == server.lost.done()
            return len(server.received), client.lost.done()

        ends.append(in_net(main, replace(WILD, refuse_rate=0, reset_rate=0.3, silent_rate=0.3), seed))
    assert {lost for _, lost in ends} == {True, False}
    assert all(received == 50_000 for received, lost in ends if not lost)
    assert len({received for received, lost in ends if lost}) > 10


def test_stream_pair_and_open_stream() -> None:
    async def main(loop: SimLoop, net: SimNet) -> None:
        parent, child = Process(loop, "parent", "a"), Process(loop, "child", "a")
        ours, theirs = net.stream_pair(parent, child, limit=1 << 20)
        heard: list[bytes] = []

        async def listen(reader: asyncio.StreamReader) -> None:
            while line := await reader.readline():
                assert current_process() is child
                heard.append(line)
            heard.append(b"end")

        child.start(listen(theirs[0]))
        parent.call_soon(ours[1].writelines, [b"one\ntw", b"o\n" + b"x" * 300_000 + b"\n"])
        await asyncio.sleep(1)
        assert [len(line) for line in heard] == [4, 4, 300_001]
        parent.kill()
        await asyncio.sleep(1)
        assert heard[3:] == [b"end"]

    in_net(main)


# -- the product's own connections on it ---------------------------------------------------------------------------------


def handlers() -> list[Handler]:
    versions, sync = api(ApiKey.API_VERSIONS), api(ApiKey.SYNC_GROUP)
    served = tuple(
        ApiVersion(api_key=found.key, min_version=found.versions[0], max_version=found.versions[-1])
        for found in (versions, sync)
    )

    async def answer_versions(_ctx: Any, _exchange: Any) -> ApiVersionsResponse:
        return ApiVersionsResponse(api_keys=served)

    async def answer(_ctx: Any, exchange: Any) -> SyncGroupResponse:
        await asyncio.sleep(0.01)
        return SyncGroupResponse(assignment=exchange.body.member_id.encode() * 2000)

    return [Handler(versions, answer_versions), Handler(sync, answer)]


def talk(seed: int, faults: NetFaults) -> tuple[list[str], str]:
    async def main(loop: SimLoop, net: SimNet) -> list[str]:
        server, client, found = Process(loop, "server", "b"), Process(loop, "client", "a"), []

        async def serve() -> None:
            listener = Listener(net.bind("b", 9092), 10, 1 << 20)  # type: ignore[arg-type]
            await listener.start(None, handlers(), ConnectionMemory(1 << 30))  # type: ignore[arg-type]

        async def ask(peer: KafkaPeer, n: int) -> None:
            for _ in range(20):
                request = SyncGroupRequest(group_id="g", generation_id=1, member_id=f"<{n}>")
                try:
                    response = await peer.call(ApiKey.SYNC_GROUP, request, 3)
                except Unavailable:
                    found.append("unavailable")
                    await asyncio.sleep(0.5)
                    continue
                assert response.assignment == f"<{n}>".encode() * 2000
                found.append(f"answer {n}")

        server.start(serve())
        await asyncio.sleep(1)
        peer = KafkaPeer("b", 9092, "sim", 30)
        for n in range(5):
            client.start(ask(peer, n))
        await asyncio.sleep(3000)
        assert len(found) == 100
        return found

    loop = SimLoop(seed)
    found = loop.run_until_complete(main(loop, SimNet(loop, faults)))
    assert not loop.failures
    loop.close()
    return found, loop.trace.digest


def test_kafka_peer_and_listener_talk() -> None:
    found, _ = talk(1, CHOPPY)
    assert "unavailable" not in found
    unlucky = [talk(seed, replace(WILD, reset_rate=0.5)) for seed in (2, 2, 3)]
    assert unlucky[0] == unlucky[1]
    assert unlucky[0][1] != unlucky[2][1]
    assert any("unavailable" in found for found, _ in unlucky)


def test_a_transport_refuses_what_is_not_bytes() -> None:
    async def main(loop: SimLoop, net: SimNet) -> None:
        client, *_ = await pair(loop, net)
        assert isinstance(client.transport, SimTransport)
        with pytest.raises(TypeError, match="bytes-like"):
            client.transport.write("text")

    in_net(main)

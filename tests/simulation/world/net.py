"""A network in virtual time: hosts, ports and connections whose latency, splits and failures come from a seed.

A connection is two ordered streams of segments. What is written leaves in segments of any size as far as the window
(in flight, plus unread at the receiver) lets it; the rest waits in the transport, which asks its protocol to pause.
Bytes that arrive together may be delivered together or in parts. So no code may lean on message borders.

Faults: a connection may be fated to a reset in the middle of its bytes, or to fall silent for a while and then reset;
`partition` stops the bytes between two hosts (one way, if asked), `heal` delivers them late or resets (the metadata store
and a bucket are hosts that have no sockets here, and ask `parted`); a process that ends resets its connections after a while, mostly short (long: half-open); `power_off` makes a host fall silent.
Connections inside one host fail only by the death of a process.

The transport is what asyncio's protocols expect; `stream_pair` is a socket pair as reader and writer.
"""

import asyncio
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from simulation.world.chance import Latency
from simulation.world.link import Link, SimTransport
from simulation.world.loop import SimLoop, current_process
from simulation.world.process import Process

SELF = ("127.0.0.1", "localhost", "::1", "0.0.0.0")
FIRST_FREE_PORT = 40_000


REMOTE, LOCAL, END = Latency(0.0005, 0.002, 0.2), Latency(0.00005), Latency(0.002, 0.1, 30.0)


@dataclass(frozen=True, slots=True)
class NetFaults:
    """Rates are chances: per segment, per connection between hosts, per connection attempt."""

    latency: Latency = REMOTE
    local_latency: Latency = LOCAL
    split_rate: float = 0.1
    part_rate: float = 0.05  # a delivery hands over only a part of what is there
    reset_rate: float = 0.0
    silent_rate: float = 0.0
    fate_bytes: int = 100_000  # a fated connection lives for about so many bytes
    refuse_rate: float = 0.0
    window_bytes: int = 256 * 1024
    end_delay: Latency = END  # until peers see that a process has ended
    give_up_s: float = 60.0  # a partition or silence of that length resets


MILD = NetFaults(reset_rate=0.02, refuse_rate=0.01)
WILD = NetFaults(Latency(0.001, 0.01, 1.0), reset_rate=0.15, silent_rate=0.03, refuse_rate=0.05, fate_bytes=20_000)


def parted(loop: SimLoop, source: str, target: str) -> bool:
    """Whether nothing gets from one host to the other, for those who need no connection."""
    return loop.net is not None and loop.net.blocked(source, target)


class SimSocket:
    """A bound port: the part of socket.socket that listeners use."""

    def __init__(self, net: "SimNet", host: str, port: int) -> None:
        self._net = net
        self._name = (host, port)

    def getsockname(self) -> tuple[str, int]:
        return self._name

    def close(self) -> None:
        self._net.release(self)


@dataclass(slots=True, eq=False)
class Listening:
    factory: Callable[[], asyncio.Protocol]
    process: Process | None


class SimServer(asyncio.AbstractServer):
    def __init__(self, net: "SimNet", sock: SimSocket) -> None:
        self._net = net
        self.sockets = (sock,)

    def close(self) -> None:
        self._net.stop_listening(self.sockets[0])

    def is_serving(self) -> bool:
        return self._net.is_listening(self.sockets[0])

    async def wait_closed(self) -> None:
        await asyncio.sleep(0)


class SimNet:
    def __init__(self, loop: SimLoop, faults: NetFaults = NetFaults()) -> None:
        """Becomes the network of the loop."""
        self.loop = loop
        self.faults = faults
        self.random = loop.derived("net")
        self.links: list[Link] = []
        self._bound: dict[tuple[str, int], SimSocket] = {}
        self._listening: dict[tuple[str, int], Listening] = {}
        self._blocked: set[tuple[str, str]] = set()  # asked, never iterated
        self._off: set[str] = set()
        self._next_port = FIRST_FREE_PORT
        loop.net = self

    # -- what processes do ---------------------------------------------------------------------------------------------

    def bind(self, host: str, port: int = 0) -> SimSocket:
        """OSError if it is taken. Freed by close, or with the process."""
        process = current_process()
        host = process.host if process and host in SELF else host
        if not port:
            port, self._next_port = self._next_port, self._next_port + 1
        if (host, port) in self._bound:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        sock = self._bound[host, port] = SimSocket(self, host, port)
        if process:
            process.at_end.append(sock.close)
        return sock

    def listen(self, factory: Callable[[], asyncio.Protocol], sock: SimSocket) -> SimServer:
        assert self._bound.get(sock.getsockname()) is sock, "the port was closed"
        self._listening[sock.getsockname()] = Listening(factory, current_process())
        return SimServer(self, sock)

    async def connect(self, factory: Callable[[], Any], host: str, port: int) -> tuple[SimTransport, Any]:
        """As loop.create_connection: OSError if it is refused; behind a partition it hangs, or is unreachable."""
        process = current_process()
        here = process.host if process else "world"
        there = here if host in SELF else host
        local = here == there
        await asyncio.sleep(2 * self._latency(local).draw(self.random))
        if not local and self.random.random() < self.faults.refuse_rate:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed, for once")
        if self.blocked(here, there) or self.blocked(there, here):
            await self._unreachable(here, there)
        listening = self._listening.get((there, port))
        if listening is None or (listening.process and not listening.process.alive):
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"Connect call failed ('{there}', {port})")
        link = Link(self, (here, process), (there, listening.process), local)
        link.ends[1].server_side((there, port))
        link.ends[0].protocol = protocol = factory()
        if listening.process:
            listening.process.call_soon(link.ends[1].accept, listening.factory)
        else:
            self.loop.in_world(0, link.ends[1].accept, listening.factory)
        protocol.connection_made(link.ends[0])
        link.ends[0].schedule_delivery()
        return link.ends[0], protocol

    async def open_stream(self, host: str, port: int, limit: int = 1 << 16) -> tuple[asyncio.StreamReader, Any]:
        """As asyncio.open_connection."""
        reader = asyncio.StreamReader(limit=limit, loop=self.loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=self.loop)
        transport, _ = await self.connect(lambda: protocol, host, port)
        return reader, asyncio.StreamWriter(transport, protocol, reader, self.loop)

    def stream_pair(
        self, first: Process | None, second: Process | None, limit: int = 1 << 16
    ) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """The two ends of a socket pair; each belongs to its process and closes with it."""
        hosts = [process.host if process else "world" for process in (first, second)]
        link = Link(self, (hosts[0], first), (hosts[1], second), local=True)
        pair = []
        for end in link.ends:
            reader = asyncio.StreamReader(limit=limit, loop=self.loop)
            end.protocol = protocol = asyncio.StreamReaderProtocol(reader, loop=self.loop)
            end.context.run(protocol.connection_made, end)
            pair.append((reader, asyncio.StreamWriter(end, protocol, reader, self.loop)))
        return pair

    def release(self, sock: SimSocket) -> None:
        name = sock.getsockname()
        if self._bound.get(name) is sock:
            del self._bound[name]
            self._listening.pop(name, None)

    def stop_listening(self, sock: SimSocket) -> None:
        if self._bound.get(sock.getsockname()) is sock:
            self._listening.pop(sock.getsockname(), None)

    def is_listening(self, sock: SimSocket) -> bool:
        return self._bound.get(sock.getsockname()) is sock and sock.getsockname() in self._listening

    # -- what happens to the network -----------------------------------------------------------------------------------

    def partition(self, a: str, b: str, *, both: bool = True) -> None:
        """No more bytes from host `a` to host `b`, nor back if `both`."""
        self.loop.event(f"partition {a} {b}{'' if both else ' one way'}")
        self._blocked |= {(a, b), (b, a)} if both else {(a, b)}

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """Between two hosts, or everywhere. What waited is delivered, if its connection has not given up."""
        self.loop.event(f"heal {a} {b}")
        self._blocked -= {(a, b), (b, a)} if a and b else set(self._blocked)
        self._release_held()

    def power_off(self, host: str) -> None:
        """Nothing answers from there any more: no reset, no refusal. Its processes are the caller's to kill: next."""
        self.loop.event(f"power off {host}")
        self._off.add(host)

    def power_on(self, host: str) -> None:
        self.loop.event(f"power on {host}")
        self._off.discard(host)
        self._release_held()

    def reset(self, a: str, b: str) -> None:
        """Every connection between two hosts breaks now."""
        for link in self.links:
            if {end.host for end in link.ends} == {a, b}:
                link.reset()

    def blocked(self, source: str, target: str) -> bool:
        return (source, target) in self._blocked or source in self._off or target in self._off

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _latency(self, local: bool) -> Latency:
        return self.faults.local_latency if local else self.faults.latency

    async def _unreachable(self, here: str, there: str) -> None:
        if self.random.random() < 0.3:
            await asyncio.sleep(self.random.random() * 3)
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        deadline = self.loop.time() + self.faults.give_up_s
        while self.blocked(here, there) or self.blocked(there, here):
            await asyncio.sleep(0.2 + self.random.random())  # the SYN is sent again
            if self.loop.time() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    def _release_held(self) -> None:
        self.links = [link for link in self.links if not link.over]
        for link in self.links:
            for end in link.ends:
                end.release_held()

    def forget(self, link: Link) -> None:
        if len(self.links) > 256:
            self.links = [link for link in self.links if not link.over]

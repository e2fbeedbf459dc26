"""A network in virtual time: hosts, ports and connections whose latency, splits and failures come from a seed.

A connection is two ordered streams of segments. What is written leaves in segments of any size as far as the window
(in flight, plus unread at the receiver) lets it; the rest waits in the transport, which asks its protocol to pause.
Bytes that arrive together may be delivered together or in parts. So no code may lean on message borders.

Faults: a connection may be fated to a reset in the middle of its bytes, or to fall silent for a while and then reset;
`partition` stops the bytes between two hosts (one way, if asked), `heal` delivers them late or resets; a process that
ends resets its connections after a while, mostly short (long: half-open); `power_off` makes a host fall silent.
Connections inside one host fail only by the death of a process.

The transport is what asyncio's protocols expect; `stream_pair` is a socket pair as reader and writer.
"""

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from sim.chance import Latency
from sim.loop import SimLoop, current_process
from sim.process import Process

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

    async def connect(self, factory: Callable[[], Any], host: str, port: int) -> tuple["SimTransport", Any]:
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

    def forget(self, link: "Link") -> None:
        if len(self.links) > 256:
            self.links = [link for link in self.links if not link.over]


class Link:
    """One connection: two ends, and what fate has in store for it."""

    def __init__(
        self, net: SimNet, client: tuple[str, Process | None], server: tuple[str, Process | None], local: bool
    ) -> None:
        self.net = net
        self.local = local
        self.latency = net._latency(local)
        self.silent = False
        self.fate: str | None = None
        self.bytes_left = 0
        random, faults = net.random, net.faults
        if not local:
            drawn = random.random()
            if drawn < faults.reset_rate + faults.silent_rate:
                self.fate = "reset" if drawn < faults.reset_rate else "silent"
                self.bytes_left = int(random.expovariate(1 / faults.fate_bytes))
        name = (client[0], net._next_port)
        net._next_port += 1
        self.ends = (SimTransport(self, *client), SimTransport(self, *server))
        self.ends[0].peer, self.ends[1].peer = self.ends[1], self.ends[0]
        self.ends[0].names, self.ends[1].names = (name, (server[0], 0)), ((server[0], 0), name)
        net.links.append(self)

    @property
    def over(self) -> bool:
        return self.ends[0].gone and self.ends[1].gone

    def passing(self, size: int) -> int:
        """How many of so many bytes still pass before fate strikes."""
        if self.fate is None:
            return size
        size = min(size, self.bytes_left)
        self.bytes_left -= size
        return size

    def strike(self) -> None:
        """Behind the last byte that passed."""
        if self.fate == "reset":
            self.reset()
        elif self.fate == "silent":
            self.ends[0]._send(self.fall_silent)
            self.ends[1]._send(self.fall_silent)
            self.net.loop.in_world(self.net.random.random() * self.net.faults.give_up_s, self.expire)
        self.fate = None

    def fall_silent(self) -> None:
        self.silent = True

    def reset(self) -> None:
        """Both ends learn it, each in its own time."""
        for end in self.ends:
            end.reset_later()

    def expire(self) -> None:
        """Both ends give up by themselves: too long nothing was heard."""
        for end in self.ends:
            self.net.loop.in_world(self.net.random.random(), end._arrive_reset)


class SimTransport(asyncio.Transport):
    def __init__(self, link: Link, host: str, process: Process | None) -> None:
        super().__init__()
        self.link = link
        self.host = host
        self.process = process
        self.context = process.context.copy() if process else Context()
        self.peer: SimTransport
        self.names: tuple[tuple[str, int], tuple[str, int]]
        self.protocol: Any = None
        self.gone = False  # for the network: closed, reset or dead
        self._net = link.net
        self._loop = link.net.loop
        self._closing = False
        self._lost = False
        # out
        self._out: deque[Any] = deque()
        self._out_bytes = 0
        self._unread_bytes = 0  # sent by us, not yet read by the peer: in flight or in its inbox
        self._last_arrival = 0.0
        self._eof = False
        self._eof_sent = False
        self._high, self._low = 64 * 1024, 16 * 1024
        self._writing_paused = False
        self._pump_scheduled = False
        # in
        self._inbox: deque[bytes] = deque()
        self._reset_in = False
        self._eof_in = False
        self._eof_told = False
        self._reading = True
        self._delivery_scheduled = False
        self._travelling: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._held: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()  # by a partition
        self._held_since = 0.0
        if process:
            process.at_end.append(self._process_ended)

    # -- asyncio.Transport -----------------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        self.writelines((data,))

    def writelines(self, list_of_data: Any) -> None:
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        for data in list_of_data:
            if not isinstance(data, bytes | bytearray | memoryview):
                raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
            if len(data) and not self._closing and not self._dead:
                self._out.append(data)  # as it is, as uvloop does: changed before it leaves, it leaves changed
                self._out_bytes += len(data)
        if self._out and not self._pump_scheduled:
            self._pump_scheduled = True
            self._loop.in_world(0, self._pump)
        if self._out_bytes > self._high and not self._writing_paused:
            self._writing_paused = True
            self.protocol.pause_writing()

    def write_eof(self) -> None:
        self._eof = True
        if not self._pump_scheduled:
            self._pump()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if self._closing or self._dead:
            return
        self._closing = True
        self._reading = False
        if not self._out:
            self._finish()

    def abort(self) -> None:
        if self._dead or self._lost:
            return
        self._closing = True
        self._drop(None)
        self.peer.reset_later()

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._closing:
            self._reading = True
            self.schedule_delivery()

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high if high is not None else 4 * low if low is not None else 64 * 1024
        self._low = low if low is not None else self._high // 4
        assert self._high >= self._low >= 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        return self._out_bytes

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"sockname": self.names[0], "peername": self.names[1]}.get(name, default)

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    # -- sending (the kernel's side: runs whoever is paused) -----------------------------------------------------------

    @property
    def _dead(self) -> bool:
        return self.process is not None and not self.process.alive

    def _pump(self) -> None:
        """Send what the window lets us."""
        self._pump_scheduled = False
        if self.gone:
            return
        faults, random = self._net.faults, self._net.random
        while self._out and (room := faults.window_bytes - self._unread_bytes) > 0:
            data = self._taken(min(room, self._out_bytes))
            while data:
                cut = random.randint(1, len(data)) if random.random() < faults.split_rate else len(data)
                segment, data = data[:cut], data[cut:]
                self._unread_bytes += len(segment)
                passing = self.link.passing(len(segment))
                if passing:
                    self._send(self.peer._arrive, segment[:passing])
                if passing < len(segment):
                    self.link.strike()
        if self._writing_paused and self._out_bytes <= self._low:
            self._loop.call_soon(self._resume_writing, context=self.context)
        if not self._out and self._closing:
            self._finish()
        elif not self._out and self._eof:
            self._send_eof()

    def _taken(self, size: int) -> bytes:
        """The next bytes, however they were written."""
        parts, left = [], size
        while left:
            part = memoryview(self._out.popleft())
            if len(part) > left:
                self._out.appendleft(part[left:])
                part = part[:left]
            parts.append(part)
            left -= len(part)
        self._out_bytes -= size
        return b"".join(parts)

    def _send(self, arrive: Callable[..., None], *args: Any, delay: float | None = None) -> None:
        """To the peer, after everything that was sent before."""
        self._travelling.append((arrive, args))
        self._arrive_in(self.link.latency.draw(self._net.random) if delay is None else delay)

    def _arrive_in(self, delay: float) -> None:
        self._last_arrival = max(self._last_arrival, self._loop.time() + delay)
        self._loop.call_at(self._last_arrival, self._pass, context=Context())

    def _pass(self) -> None:
        """What is next arrives, or is held."""
        arrive, args = self._travelling.popleft()
        if self.link.silent:
            return
        if self._held or self._net.blocked(self.host, self.peer.host):
            if not self._held:
                self._held_since = self._loop.time()
                self._loop.in_world(self._net.faults.give_up_s, self._give_up, self._held_since)
            self._held.append((arrive, args))
        else:
            arrive(*args)

    def release_held(self) -> None:
        """The partition is over: the bytes are sent again, a little later, and before all younger ones."""
        if not self._held or self._net.blocked(self.host, self.peer.host):
            return
        held, self._held = self._held, deque()
        self._travelling.extendleft(reversed(held))
        for _ in held:
            self._arrive_in(self.link.latency.draw(self._net.random))

    def _give_up(self, since: float) -> None:
        if self._held and self._held_since == since:
            self._held.clear()
            self.link.expire()

    def _send_eof(self) -> None:
        if not self._eof_sent:
            self._eof_sent = True
            self._send(self.peer._arrive_eof)

    def _finish(self) -> None:
        """Closed, and all that was written is out. Unread bytes make it a reset, as TCP does."""
        if self.gone:
            return
        if self._inbox:
            self.peer.reset_later()
        else:
            self._send_eof()
        self._drop(None)

    def _resume_writing(self) -> None:
        if self._writing_paused and self._out_bytes <= self._low and not self._lost:
            self._writing_paused = False
            self.protocol.resume_writing()

    # -- receiving -------------------------------------------------------------------------------------------------------

    def _arrive(self, data: bytes) -> None:
        if self.gone:  # nobody is there: the sender is told
            self.peer.reset_later()
            return
        self._inbox.append(data)
        self.schedule_delivery()

    def _arrive_eof(self) -> None:
        if not self.gone:
            self._eof_in = True
            self.schedule_delivery()

    def schedule_delivery(self) -> None:
        ready = self._inbox or self._reset_in or (self._eof_in and not self._eof_told)
        if ready and self._reading and self.protocol is not None and not self._delivery_scheduled:
            self._delivery_scheduled = True
            self._loop.call_soon(self._deliver, context=self.context)

    def _deliver(self) -> None:
        """In the receiver's own context."""
        self._delivery_scheduled = False
        if self.gone or not self._reading:
            return
        if self._inbox:
            data = self._inbox[0] if len(self._inbox) == 1 else b"".join(self._inbox)
            self._inbox.clear()
            random = self._net.random
            if len(data) > 1 and random.random() < self._net.faults.part_rate:
                cut = random.randint(1, len(data) - 1)
                self._inbox.append(data[cut:])
                data = data[:cut]
            self._loop.event(f"from {self.names[1]} {len(data)} bytes {crc32(data):08x}")
            self.peer._read_by_peer(len(data))
            self.protocol.data_received(data)
            self.schedule_delivery()
        elif self._reset_in:
            self._reset()
        elif self._eof_in and not self._eof_told:
            self._eof_told = True
            if not self.protocol.eof_received():
                self.close()

    def _read_by_peer(self, size: int) -> None:
        self._unread_bytes -= size
        if not self._pump_scheduled and (self._out or self._closing):
            self._pump_scheduled = True
            self._loop.in_world(0, self._pump)

    def server_side(self, name: tuple[str, int]) -> None:
        self.names = (name, self.names[1])
        self.peer.names = (self.peer.names[0], name)

    def accept(self, factory: Callable[[], asyncio.Protocol]) -> None:
        """In the listener's context; what has arrived by now is delivered next."""
        if self.gone:
            return  # reset before it was accepted
        self.protocol = factory()
        self.protocol.connection_made(self)
        self.schedule_delivery()

    # -- ends ------------------------------------------------------------------------------------------------------------

    def reset_later(self, delay: float | None = None) -> None:
        """This end hears of it after all that was sent to it before."""
        self.peer._send(self._arrive_reset, delay=delay)

    def _arrive_reset(self) -> None:
        """What was not read yet may still be read, or not."""
        if self.gone:
            return
        self._reset_in = True
        if self._inbox and self._reading and self._net.random.random() < 0.5:
            self.schedule_delivery()
        else:
            self._reset()

    def _reset(self) -> None:
        self._closing = True
        self._drop(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))

    def _drop(self, error: Exception | None) -> None:
        """This end is over; its protocol is told soon."""
        self.gone = True
        self._reading = False
        self._out.clear()
        self._out_bytes = 0
        self._inbox.clear()
        if self.process and self._process_ended in self.process.at_end:
            self.process.at_end.remove(self._process_ended)
        if not self._dead:
            self._loop.call_soon(self._tell_lost, error, context=self.context)
        self._net.forget(self.link)

    def _tell_lost(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            if self.protocol is not None:
                self.protocol.connection_lost(error)

    def _process_ended(self) -> None:
        """The kernel closes for it. What is in flight still arrives; the peer sees the end later, perhaps much later."""
        if self.gone:
            return
        random = self._net.random
        latency = self.link.latency if self.link.local else self._net.faults.end_delay
        delay = latency.draw(random)
        if self._inbox or (not self.link.local and random.random() < 0.5):
            self.peer.reset_later(delay)
        elif not self._eof_sent:
            self._send(self.peer._arrive_eof, delay=delay)
        self._drop(None)

"""One simulated connection: two transports, the bytes that travel between them, and what fate has in store for it.

A transport has a process's side, which asyncio's protocols see, and the kernel's: what was sent travels on whoever is
paused or dead, and what arrives waits until the process reads it. Each direction is a queue, so nothing overtakes; an
end of the stream or a reset travels in it too, behind the bytes that were sent before. See net.py.
"""

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any
from zlib import crc32

from simulation.world.process import Process
from support.deliver import deliver

if TYPE_CHECKING:
    from simulation.world.net import SimNet


class Link:
    """One connection: two ends, and what fate has in store for it."""

    def __init__(
        self, net: "SimNet", client: tuple[str, Process | None], server: tuple[str, Process | None], local: bool
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
            deliver(self.protocol, data)
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

"""The order of one connection: requests start one after another, answers leave in the order of the requests. Sans-IO.

Kafka promises its clients that a request is handled after the one before it. So a request may start only when the one
before it is finished, or has released its place early: Produce does when its offsets are given, Fetch while it waits
for data. Answers that are ready early wait for those before them.

Both the number of requests in flight and the bytes that they and their unsent answers hold are limited; above a limit
nothing starts and the owner stops reading. So it is while `memory`, the account of all connections, is full. One
request always fits, however large: its answer waits for no other connection, so nobody waits for ever.
"""

from collections import deque
from collections.abc import Sequence

from streamlake.core.account import Account
from streamlake.protocol.wire import Buffer


class Slot:
    """The place of one request in the order, from its start to the sending of its answer."""

    __slots__ = ("_answer", "_held_bytes", "_pipeline", "finished", "may_be_abandoned", "released")

    def __init__(self, pipeline: "Pipeline", request_bytes: int, released: bool) -> None:
        self.released = released
        self.finished = False
        self.may_be_abandoned = False  # it only waits for others, and changes nothing
        self._pipeline = pipeline
        self._held_bytes = request_bytes
        self._answer: Sequence[Buffer] = ()

    def release(self) -> None:
        """Let the next request start before this one is finished."""
        self.released = True

    def finish(self, answer: Sequence[Buffer] | None) -> None:
        """The request is done; None if it has no answer (Produce with acks=0). Only once."""
        assert not self.finished, "a request is answered twice"
        self.released = self.finished = True
        if answer and not self._pipeline.closed:
            self._answer = answer
        answer_bytes = sum(map(len, self._answer))
        self._pipeline.count(answer_bytes - self._held_bytes)
        self._held_bytes = answer_bytes

    def drop(self) -> None:
        """Nobody waits for the answer any more. What may be abandoned is, and may never be finished."""
        if self.finished or self.may_be_abandoned:
            self._answer = ()
            self._pipeline.count(-self._held_bytes)
            self._held_bytes = 0


class Pipeline:
    def __init__(self, max_in_flight: int, max_held_bytes: int, memory: Account) -> None:
        self.max_in_flight = max_in_flight
        self.max_held_bytes = max_held_bytes
        self.held_bytes = 0  # bytes that wait to become requests, requests without an answer, answers not yet sent
        self.closed = False
        self._memory = memory
        self.buffered_bytes = 0  # received, and to become requests
        self._unsent_bytes = 0
        self._slots: deque[Slot] = deque()

    @property
    def idle(self) -> bool:
        """No request is under way but those that may be abandoned."""
        return all(slot.finished or slot.may_be_abandoned for slot in self._slots)

    @property
    def is_alone(self) -> bool:
        """One request is under way, and no other."""
        return len(self._slots) == 1

    @property
    def may_start(self) -> bool:
        if not self._slots and not self._unsent_bytes:
            return True
        if len(self._slots) >= self.max_in_flight or self._memory.is_full:
            return False
        held_bytes = self.held_bytes - self.buffered_bytes  # what would start now does not stand in its own way
        return held_bytes < self.max_held_bytes and (not self._slots or self._slots[-1].released)

    @property
    def may_read(self) -> bool:
        """Whether to read from the socket."""
        if not self._slots and not self._unsent_bytes:
            return True  # all that waits is a part of one frame, which must become whole
        if len(self._slots) >= self.max_in_flight or self._memory.is_full:
            return False
        return self.held_bytes < self.max_held_bytes

    def count(self, change_bytes: int) -> None:
        self.held_bytes += change_bytes
        self._memory.count(change_bytes)

    def buffer(self, size_bytes: int) -> None:
        """So many bytes wait to become requests now."""
        self.count(size_bytes - self.buffered_bytes)
        self.buffered_bytes = size_bytes

    def begin(self, request_bytes: int, *, release: bool = False) -> Slot:
        """Start a request; only while `may_start`. `release`: the next one may start before it is finished."""
        assert self.may_start, "a request starts before its time"
        slot = Slot(self, request_bytes, release)
        self._slots.append(slot)
        self.held_bytes += request_bytes
        self._memory.held_bytes += request_bytes  # nobody waits for more to be held
        return slot

    def take_ready(self) -> list[Buffer]:
        """The answers that may leave now, in order, as buffers to send; empty if there is none. They count until
        `sent`. Not asked while the socket's send buffer is full."""
        ready: list[Buffer] = []
        while self._slots and self._slots[0].finished:
            slot = self._slots.popleft()
            self._unsent_bytes += slot._held_bytes
            ready += slot._answer
        return ready

    def sent(self) -> None:
        """The socket's send buffer has capacity: what was taken does not count any more."""
        if self._unsent_bytes:
            self.count(-self._unsent_bytes)
            self._unsent_bytes = 0

    def close(self) -> None:
        """The connection is lost, and nobody takes its answers. A request that goes on counts until it is finished."""
        self.closed = True
        for slot in self._slots:
            slot.drop()
        self.sent()
        self.buffer(0)

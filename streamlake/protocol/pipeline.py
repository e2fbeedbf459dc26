"""The order of one connection: requests start one after another, answers leave in the order of the requests. Sans-IO.

Kafka promises its clients that a request is handled after the one before it. So a request may start only when the one
before it is finished, or has released its place early: Produce does when its offsets are given, Fetch while it waits
for data. Answers that are ready early wait for those before them.

Both the number of requests in flight and the bytes that they and their unsent answers hold are limited; above a limit
nothing starts and the owner stops reading. One request always fits, however large.
"""

from collections import deque
from collections.abc import Sequence

from streamlake.protocol.wire import Buffer


class Slot:
    """The place of one request in the order, from its start to the sending of its answer."""

    __slots__ = ("_answer", "_held_bytes", "_pipeline", "finished", "may_be_abandoned", "released")

    def __init__(self, pipeline: "Pipeline", request_bytes: int) -> None:
        self.released = False
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
        self._answer = answer or ()
        answer_bytes = sum(map(len, self._answer))
        self._pipeline.held_bytes += answer_bytes - self._held_bytes
        self._held_bytes = answer_bytes


class Pipeline:
    def __init__(self, max_in_flight: int, max_held_bytes: int) -> None:
        self.max_in_flight = max_in_flight
        self.max_held_bytes = max_held_bytes
        self.held_bytes = 0  # requests without an answer, answers not yet taken
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
        if not self._slots:
            return True
        has_room = len(self._slots) < self.max_in_flight and self.held_bytes < self.max_held_bytes
        return has_room and self._slots[-1].released

    def may_read(self, buffered_bytes: int) -> bool:
        """Whether to read from the socket while so many bytes wait to become requests (FrameReader.buffered_bytes)."""
        if not self._slots:
            return True  # all that waits is a part of one frame, which must become whole
        return len(self._slots) < self.max_in_flight and self.held_bytes + buffered_bytes < self.max_held_bytes

    def begin(self, request_bytes: int) -> Slot:
        """Start a request; only while `may_start`."""
        assert self.may_start, "a request starts before its time"
        slot = Slot(self, request_bytes)
        self._slots.append(slot)
        self.held_bytes += request_bytes
        return slot

    def take_ready(self) -> list[Buffer]:
        """The answers that may leave now, in order, as buffers to send; empty if there is none.

        Not asked while the socket's send buffer is full, so that unsent answers go on to count.
        """
        ready: list[Buffer] = []
        while self._slots and self._slots[0].finished:
            slot = self._slots.popleft()
            self.held_bytes -= slot._held_bytes
            ready += slot._answer
        return ready

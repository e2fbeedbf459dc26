"""Produce requests that follow each other on a connection and share their head, begun as one.

A producer sends the same few heads over and over: version, client id, acks, timeout, topic, partition. What follows
from a head is worked out once (`Route`); then such requests cost one look-up, one run of batches (record/run.py), one
append, one future and one buffer of answers. A run of one is the ordinary case. Requests of another form, and those
that must wait for capacity or for a thread, are read one by one: produce.py.
"""

import asyncio
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import msgspec

from streamlake.core import native
from streamlake.core.errors import StreamLakeError
from streamlake.handlers import produce
from streamlake.handlers.context import Context, find_topic
from streamlake.handlers.error_codes import LOG, Failure, failure
from streamlake.log.partition import Appended, Partition
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.produce import (
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceResponse,
)
from streamlake.protocol.pipeline import Slot
from streamlake.protocol.requests import Api, Call, encode_response, parse
from streamlake.protocol.wire import Buffer
from streamlake.record.run import Run
from streamlake.record.validate import check_run

_kernel = native.load("streamlake.protocol.head_kernel")

RUN_MAX = 256  # requests
ROUTES_MAX = 256  # of a connection
ROUTE_ADMISSION = 8  # when there are more heads than that, one in so many that are missed takes the place of the oldest
# Where a response has these numbers, others are put.
_BASE_OFFSET, _LOG_START_OFFSET, _APPEND_TIME_MS = 0x5EED_BA5E_0FF5_E7A1, 0x5EED_57A2_70FF_5E7B, 0x5EED_A99E_4D71_3E00


class Replies(Protocol):
    """Takes the answers of requests that were begun together to their client, who has a slot for them."""

    def finish(self, slot: Slot, buffers: list[Buffer] | None) -> None:
        """All answers, in order, or None if there are none. Called once."""
        ...

    def fail(self, slot: Slot, error: Exception) -> None:
        """Instead of `finish`."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """What a head means. `places`: of base offset, log start and append time in the response, -1 if it has none."""

    call: Call  # without its request
    acks: int
    timeout_s: float
    has_transactional_id: bool
    name: str
    topic_id: UUID | None
    index: int
    response: bytes
    places: tuple[int, int, int]


class Runs:
    """Of one connection. `served`: by API key."""

    def __init__(self, ctx: Context, served: Mapping[int, Api], frame_bytes_max: int) -> None:
        self._ctx = ctx
        self._served = served
        self._frame_bytes_max = frame_bytes_max
        self._routes: dict[bytes, Route | None] = {}
        # Those of the routes that were open. One that is found closed was deleted, or is led by another broker.
        self._partitions: dict[bytes, weakref.ref[Partition]] = {}
        self._missed = 0  # heads for which there was no place
        self._alone = 0  # requests that could not be appended together, and are now begun one by one

    def begin(self, received: bytes | memoryview, at: int, end: int) -> "PendingReply | None":
        """The requests that start at `at`, as many as can be begun together; None if the first must be read by itself
        or does not end before `end`. Then nothing was done. Malformed as `parse`."""
        head = _kernel.head(received, at, end)
        if head is None:
            return None
        route = self._routes[head] if head in self._routes else self._learn(head, received, at)
        if route is None:
            return None
        known = self._partitions.get(head)
        partition = known() if known is not None else None
        if partition is None or partition.is_closed:
            topic = find_topic(self._ctx, route.name, route.topic_id)
            partition = None if isinstance(topic, ErrorCode) else self._ctx.logs.get(topic.id, route.index)
            if partition is None:
                return None
            self._partitions[head] = weakref.ref(partition)
        if partition.settings.codec is not None:  # some batches may have to be compressed again
            return None
        begun = self._begin(received, at, end, head, route, partition)
        if begun is not None and begun.is_refused and begun.count > 1:
            self._alone = begun.count  # each gets its own answer
            begun = self._begin(received, at, end, head, route, partition)
        if self._alone:
            self._alone -= 1
        return begun

    def _begin(
        self, received: bytes | memoryview, at: int, end: int, head: bytes, route: Route, partition: Partition
    ) -> "PendingReply | None":
        frames = _kernel.frames(received, at, end, head, self._frame_bytes_max, 1 if self._alone else RUN_MAX)
        if frames is None:
            return None
        run = check_run(received, frames.spans, partition.settings.max_message_bytes)
        if run is None or (run.is_transactional and not _is_verified(route, run, partition)):
            return None
        frames.keep(len(run))
        try:
            if not self._ctx.streams.try_reserve(run.size_bytes):
                return None
        except StreamLakeError:
            return None
        outcome: Appended | Failure
        unused_bytes = run.size_bytes
        try:
            outcome = partition.append(run)
            unused_bytes -= outcome.appended_bytes
        except StreamLakeError as error:
            outcome = failure(error, LOG)
        finally:  # after a bug too, as `produce.Reservation`
            if unused_bytes:
                self._ctx.streams.release(unused_bytes)
        return PendingReply(self._ctx, route, frames, run, frames.end - at, outcome)

    def _learn(self, head: bytes, received: bytes | memoryview, at: int) -> Route | None:
        if len(self._routes) >= ROUTES_MAX:
            self._missed += 1
            if self._missed % ROUTE_ADMISSION:
                return None
            oldest = next(iter(self._routes))
            del self._routes[oldest]
            self._partitions.pop(oldest, None)
        size = int.from_bytes(received[at : at + 4], "big")
        route = self._routes[head] = _route(self._ctx, parse(self._served, bytes(received[at + 4 : at + 4 + size])))
        return route


def _is_verified(route: Route, run: Run, partition: Partition) -> bool:
    """Of a transactional run: whether nobody need be asked about its transaction."""
    asks = partition.transactions.must_ask(run.producer_id, run.producer_epoch)
    return route.has_transactional_id and not asks


class PendingReply:
    """The reply to requests whose batches have their offsets and are not durable yet. Call `reply_to` at once."""

    __slots__ = (
        "_ctx",
        "_frames",
        "_is_done",
        "_offsets",
        "_outcome",
        "_replies",
        "_route",
        "_slot",
        "_tick",
        "count",
        "is_refused",
        "size_bytes",
        "work_bytes",
    )

    def __init__(
        self, ctx: Context, route: Route, frames: Any, run: Run, size_bytes: int, outcome: Appended | Failure
    ) -> None:
        self.size_bytes = size_bytes  # of what was received
        self.work_bytes = size_bytes + run.unpacked_bytes
        self.count = len(frames)  # of requests
        self._ctx = ctx
        self._route = route
        self._frames = frames
        self._outcome = outcome
        self.is_refused = isinstance(outcome, Failure)  # nothing was appended
        self._offsets = b"" if isinstance(outcome, Failure) else run.base_offsets(outcome.base_offset)

    def reply_to(self, replies: Replies, slot: Slot) -> None:
        self._replies, self._slot = replies, slot
        self._is_done = False
        if self._route.acks == 0:
            replies.finish(slot, None)
        elif isinstance(self._outcome, Failure):
            self._answer()
        else:
            self._tick = self._ctx.deadlines.add(self, self._route.timeout_s)
            self._outcome.durable.add_done_callback(self._durable)

    def _durable(self, durable: "asyncio.Future[None]") -> None:
        if not self._is_done:
            self._ctx.deadlines.remove(self, self._tick)
            self._answer()

    def time_is_up(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self._is_done = True  # what becomes durable after the timeout comes too late for this answer
        try:
            answers = self._answers()
        except Exception as error:
            self._replies.fail(self._slot, error)
        else:
            self._replies.finish(self._slot, answers)

    def _answers(self) -> list[Buffer]:
        route, outcome = self._route, self._outcome
        if isinstance(outcome, Appended) and outcome.durable.done() and outcome.durable.exception() is None:
            numbers = self._offsets, outcome.log_start_offset, outcome.log_append_time_ms
            return [self._frames.responses(route.response, route.places, *numbers)]
        response = produce.response(self._ctx, [produce.Part(route.name, route.topic_id, route.index, outcome)])
        calls = (msgspec.structs.replace(route.call, correlation_id=n) for n in self._frames.correlation_ids)
        return [buffer for call in calls for buffer in encode_response(call, response)]


def runs(ctx: Context, served: Mapping[int, Api], frame_bytes_max: int) -> Runs | None:
    """For a new connection; None where there is no kernel."""
    return Runs(ctx, served, frame_bytes_max) if _kernel else None


def _route(ctx: Context, call: Call) -> Route | None:
    request: ProduceRequest = call.request
    if produce.refusal(ctx, request) is not None:
        return None
    (topic,) = request.topic_data
    (data,) = topic.partition_data
    part = PartitionProduceResponse(
        index=data.index,
        base_offset=_BASE_OFFSET,
        log_append_time_ms=_APPEND_TIME_MS,
        log_start_offset=_LOG_START_OFFSET,
    )
    response = ProduceResponse(
        responses=(TopicProduceResponse(name=topic.name, topic_id=topic.topic_id, partition_responses=(part,)),)
    )
    encoded = b"".join(encode_response(call, response))
    return Route(
        call=msgspec.structs.replace(call, request=None),
        acks=request.acks,
        timeout_s=produce.timeout_s(request),
        has_transactional_id=request.transactional_id is not None,
        name=topic.name,
        topic_id=topic.topic_id,
        index=data.index,
        response=encoded,
        places=(
            encoded.rfind(_BASE_OFFSET.to_bytes(8, "big")),
            encoded.rfind(_LOG_START_OFFSET.to_bytes(8, "big")),
            encoded.rfind(_APPEND_TIME_MS.to_bytes(8, "big")),
        ),
    )

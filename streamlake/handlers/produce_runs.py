"""Produce requests that follow each other on a connection and differ in nothing but their records, begun as one.

A producer sends the same few heads over and over: version, client id, acks, timeout, topic, partition. What follows
from a head is worked out once (`Route`); then a row of such requests costs one look-up, one append to the log, one
future and one buffer of answers (produce_kernel.pyx). All that is unusual goes the ordinary way, produce.py, as does
everything where there is no kernel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import msgspec

from streamlake.core import native
from streamlake.core.errors import StreamLakeError
from streamlake.handlers import produce
from streamlake.handlers.context import Context, find_topic
from streamlake.log.partition import Appended, Partition
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.produce import (
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceResponse,
)
from streamlake.protocol.requests import Api, Call, encode_response, parse
from streamlake.protocol.wire import Buffer

_kernel = native.load("streamlake.handlers.produce_kernel")

ROUTES_MAX = 256  # of a connection
ROUTE_ADMISSION = 8  # when there are more heads than that, one in so many that are missed takes the place of the oldest
# Where an answer has these numbers, others are put.
_BASE_OFFSET, _LOG_START_OFFSET = 0x5EED_BA5E_0FF5_E7A1, 0x5EED_57A2_70FF_5E7B


class RunReply(Protocol):
    """Takes the answers of requests that were begun together to their client."""

    def answer(self, buffers: list[Buffer] | None) -> None:
        """All answers, in order, or None if there are none. Called once."""
        ...

    def fail(self, error: Exception) -> None:
        """Instead of `answer`."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """What a head means."""

    call: Call  # without its request
    acks: int
    timeout_s: float
    name: str
    topic_id: UUID | None
    index: int
    answer: bytes
    base_offset_at: int  # in the answer
    log_start_at: int  # -1 in versions without it


class Runs:
    """Of one connection. `served`: by API key."""

    def __init__(self, ctx: Context, served: Mapping[int, Api], frame_bytes_max: int) -> None:
        self._ctx = ctx
        self._served = served
        self._frame_bytes_max = frame_bytes_max
        self._routes: dict[bytes, Route | None] = {}
        self._missed = 0  # heads for which there was no place
        self._one_by_one = 0  # requests that were looked at together in vain

    def begin(self, received: bytes | memoryview, at: int, end: int) -> "PendingReply | None":
        """The requests that start at `at`, as many as can be begun together; None if the first is unusual or does not
        end before `end`. Then nothing was done. Malformed as `parse`."""
        if self._one_by_one:
            return None
        head = _kernel.head(received, at, end)
        if head is None:
            return None
        route = self._routes[head] if head in self._routes else self._learn(head, received, at)
        if route is None:
            return None
        ctx = self._ctx
        topic = find_topic(ctx, route.name, route.topic_id)
        partition = None if isinstance(topic, ErrorCode) else ctx.logs.get(topic.id, route.index)
        if partition is None:
            return None
        run = _kernel.take(received, at, end, head, self._frame_bytes_max, partition.settings.max_message_bytes)
        if run is None:
            self._one_by_one = 1
            return None
        appended = self._append(partition, run)
        if appended is None:
            self._one_by_one = len(run)  # else the rest would be checked again for each that is refused
            return None
        return PendingReply(ctx, route, run, run.end - at, appended)

    def fell_back(self) -> None:
        """The next request went the ordinary way."""
        self._one_by_one = max(0, self._one_by_one - 1)

    def _append(self, partition: Partition, run: Any) -> Appended | None:
        streams = self._ctx.streams
        try:
            if not streams.try_reserve(run.size_bytes):
                return None
        except StreamLakeError:
            return None
        appended = None
        try:
            appended = partition.append_run(run)
        finally:
            if appended is None:
                streams.release(run.size_bytes)
        return appended

    def _learn(self, head: bytes, received: bytes | memoryview, at: int) -> Route | None:
        if len(self._routes) >= ROUTES_MAX:
            self._missed += 1
            if self._missed % ROUTE_ADMISSION:
                return None
            del self._routes[next(iter(self._routes))]
        size = int.from_bytes(received[at : at + 4], "big")
        route = self._routes[head] = _route(parse(self._served, bytes(received[at + 4 : at + 4 + size])))
        return route


class PendingReply:
    """The reply to requests that have their offsets and are not durable yet. Call `reply_to` at once."""

    __slots__ = ("_appended", "_ctx", "_reply", "_route", "_run", "size_bytes", "work_bytes")

    def __init__(self, ctx: Context, route: Route, run: Any, size_bytes: int, appended: Appended) -> None:
        self.size_bytes = size_bytes  # of what was received
        self.work_bytes = size_bytes + run.unpacked_bytes
        self._ctx = ctx
        self._route = route
        self._run = run
        self._appended = appended

    def __len__(self) -> int:
        return len(self._run)

    def reply_to(self, reply: RunReply) -> None:
        self._reply = reply
        if self._route.acks == 0:
            reply.answer(None)
        else:
            produce.Later([self._appended.durable], self._route.timeout_s, self._ctx.deadlines, self._answer)

    def _answer(self) -> None:
        try:
            answers = self._answers()
        except Exception as error:
            self._reply.fail(error)
        else:
            self._reply.answer(answers)

    def _answers(self) -> list[Buffer]:
        route, run, appended = self._route, self._run, self._appended
        if appended.durable.done() and appended.durable.exception() is None:
            place = route.base_offset_at, appended.base_offset, route.log_start_at, appended.log_start_offset
            return [run.answers(route.answer, *place)]
        response = produce.response([produce.Part(route.name, route.topic_id, route.index, appended)])
        calls = (msgspec.structs.replace(route.call, correlation_id=n) for n in run.correlation_ids)
        return [buffer for call in calls for buffer in encode_response(call, response)]


def runs(ctx: Context, served: Mapping[int, Api], frame_bytes_max: int) -> Runs | None:
    """For a new connection; None where there is no kernel."""
    return Runs(ctx, served, frame_bytes_max) if _kernel else None


def _route(call: Call) -> Route | None:
    request: ProduceRequest = call.request
    if produce.refusal(request) is not None:
        return None
    (topic,) = request.topic_data
    (data,) = topic.partition_data
    part = PartitionProduceResponse(index=data.index, base_offset=_BASE_OFFSET, log_start_offset=_LOG_START_OFFSET)
    response = ProduceResponse(
        responses=(TopicProduceResponse(name=topic.name, topic_id=topic.topic_id, partition_responses=(part,)),)
    )
    answer = b"".join(encode_response(call, response))
    return Route(
        call=msgspec.structs.replace(call, request=None),
        acks=request.acks,
        timeout_s=produce.timeout_s(request),
        name=topic.name,
        topic_id=topic.topic_id,
        index=data.index,
        answer=answer,
        base_offset_at=answer.rfind(_BASE_OFFSET.to_bytes(8, "big")),
        log_start_at=answer.rfind(_LOG_START_OFFSET.to_bytes(8, "big")),
    )

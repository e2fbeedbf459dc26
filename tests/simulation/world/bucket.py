"""A bucket that outlives processes, with a wire that loses answers: the StoreClient of simulated brokers.

A request travels, lands, and its answer travels back; each takes its time. It lands in the world, not in a process:
whoever sent it may be paused, may have given up or be dead by then. Reads and lists are strongly consistent, as S3's.

Faults, by rates: the request is lost; a 503 with nothing done; a 409 with nothing done; it is done and the answer is a
500, a reset, or never comes; it is done much later than its sender was told that it failed; a body is cut short. In a
storm (503 for most) and an outage (no answer at all) nothing is done. `heal` ends all of it. On the network the bucket is
the host of its name: what a partition stops is lost, the request or the answer.

`history` has every request that landed, or was lost, for the checkers.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from zlib import crc32

from simulation.world.chance import Latency, Windows
from simulation.world.loop import SimLoop, current_process
from simulation.world.net import parted
from simulation.world.process import Process

from streamlake.s3stream.store.client import DELETE_KEYS_MAX, LIST_PAGE_KEYS, RequestFailed
from streamlake.s3stream.store.port import ObjectMeta

T = TypeVar("T")


REQUEST = Latency(0.005, 0.01, 1.0)


@dataclass(frozen=True, slots=True)
class BucketFaults:
    """Rates are chances per request; the windows' gaps are seconds between two of them on average, 0 for none."""

    latency: Latency = REQUEST
    lost: float = 0.0
    throttled: float = 0.0  # 503
    conflict: float = 0.0  # 409, to conditional puts
    error_after: float = 0.0  # done, then 500
    reset_after: float = 0.0  # done, then reset
    silent_after: float = 0.0  # done, and no answer ever
    late: float = 0.0  # fails, and is done up to `late_s` later
    cut_short: float = 0.0  # of reads
    late_s: float = 60.0
    cancelled_lands: float = 0.7  # of requests whose sender gave up or died while they travelled
    timeout_s: float = 10.0  # of the client
    storm_gap_s: float = 0.0
    storm_s: float = 5.0
    outage_gap_s: float = 0.0
    outage_s: float = 20.0


CALM = BucketFaults()
MILD = BucketFaults(
    lost=0.01, throttled=0.03, conflict=0.01, error_after=0.01, reset_after=0.01, silent_after=0.002, cut_short=0.01
)
WILD = BucketFaults(
    latency=Latency(0.01, 0.05, 5.0),
    lost=0.03, throttled=0.05, conflict=0.03, error_after=0.04, reset_after=0.04, silent_after=0.01, late=0.02,
    cut_short=0.02, storm_gap_s=60, outage_gap_s=300,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Event:
    time_s: float
    operation: str  # put, create, get, get_range, delete, list
    key: str
    who: str
    outcome: str  # done, missing, exists; or why nothing was done: lost, 503, 409, storm, outage, parted
    size: int
    crc: int  # CRC-32 of the body of a put


@dataclass(slots=True, eq=False)
class Request:
    operation: str
    key: str
    apply: Callable[[], Any]
    process: Process | None
    answer: "asyncio.Future[Any]"
    fate: str
    body: bytes = b""

    @property
    def who(self) -> str:
        return self.process.name if self.process else "world"

    @property
    def host(self) -> str:
        return self.process.host if self.process else "world"

    @property
    def abandoned(self) -> bool:
        return self.answer.cancelled() or (self.process is not None and not self.process.alive)


class SimBucket:
    """The state. Processes reach it through `client`."""

    def __init__(self, loop: SimLoop, name: str = "bucket", faults: BucketFaults = CALM) -> None:
        self.name = name
        self.objects: dict[str, bytes] = {}
        self.history: list[Event] = []
        self.loop = loop
        self.faults = faults
        self.random = loop.derived(f"bucket {name}")
        self._storms = Windows(self.random, faults.storm_gap_s, faults.storm_s)
        self._outages = Windows(self.random, faults.outage_gap_s, faults.outage_s)

    def client(self, url: str = "s3://bucket") -> "BucketClient":
        """Keys of the client lie below the path of its URL."""
        path = url.partition("://")[2].partition("/")[2].strip("/")
        return BucketClient(self, url, path + "/" if path else "")

    def storm(self, length_s: float) -> None:
        """Most requests are answered 503 for a while."""
        self._storms.open(self.loop.time(), length_s)

    def outage(self, length_s: float) -> None:
        """No request is answered for a while."""
        self._outages.open(self.loop.time(), length_s)

    def heal(self) -> None:
        """No faults from now on; what was late may still land."""
        self.faults = BucketFaults(latency=self.faults.latency)
        self._storms.close()
        self._outages.close()

    async def request(self, operation: str, key: str, apply: Callable[[], T], body: bytes = b"") -> T:
        """Send one. `apply` does it, and returns the answer or raises RequestFailed."""
        fate = self._fate(operation)
        request = Request(operation, key, apply, current_process(), self.loop.create_future(), fate, body)
        self.loop.in_world(self.faults.latency.draw(self.random), self._land, request)
        timer = self.loop.call_later(self.faults.timeout_s, self._time_out, request)
        try:
            return await request.answer  # type: ignore[no-any-return]
        finally:
            timer.cancel()

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _fate(self, operation: str) -> str:
        """At most one fault a request."""
        faults = self.faults
        changes = operation in ("put", "create", "delete")
        chances = [("lost", faults.lost), ("503", faults.throttled)]
        if operation == "create":
            chances.append(("409", faults.conflict))
        if changes:
            chances += [
                ("error after", faults.error_after),
                ("reset after", faults.reset_after),
                ("silent after", faults.silent_after),
                ("late", faults.late),
            ]
        else:
            chances.append(("cut short", faults.cut_short))
        drawn = self.random.random()
        for fate, rate in chances:
            if drawn < rate:
                return fate
            drawn -= rate
        return "done"

    def _land(self, request: Request) -> None:
        now = self.loop.time()
        nothing_done = request.fate if request.fate in ("lost", "503", "409") else ""
        if parted(self.loop, request.host, self.name):
            nothing_done = "parted"
        elif self._outages.active(now):
            nothing_done = "outage"
        elif self._storms.active(now) and self.random.random() < 0.9:
            nothing_done = "storm"
        elif request.abandoned and self.random.random() >= self.faults.cancelled_lands:
            nothing_done = "lost"
        if nothing_done:
            self._record(request, nothing_done)
            if nothing_done in ("503", "409", "storm"):
                status = 409 if nothing_done == "409" else 503
                self._reply(request, None, RequestFailed(f"status {status}: {nothing_done}", status))
            elif nothing_done == "lost":
                self._reply(request, None, RequestFailed("connection reset", None))
            return  # in an outage, or behind a partition, nobody says anything: the client times out
        if request.fate == "late":
            self.loop.in_world(self.random.random() * self.faults.late_s, self._apply, request)
            self._reply(request, None, RequestFailed("connection reset, and the request is still on its way", None))
            return
        value, error = self._apply(request)
        if request.fate == "error after":
            value, error = None, RequestFailed("status 500: internal error", 500)
        elif request.fate == "reset after":
            value, error = None, RequestFailed("connection reset before the answer", None)
        elif request.fate == "cut short" and error is None:
            value, error = None, RequestFailed("the body was cut short", None)
        if request.fate != "silent after":
            self._reply(request, value, error)

    def _apply(self, request: Request) -> tuple[Any, RequestFailed | None]:
        try:
            value = request.apply()
        except RequestFailed as error:
            self._record(request, {404: "missing", 412: "exists"}[error.status or 0])
            return None, error
        self._record(request, "done")
        return value, None

    def _record(self, request: Request, outcome: str) -> None:
        crc = crc32(request.body)
        self.history.append(
            Event(self.loop.time(), request.operation, request.key, request.who, outcome, len(request.body), crc)
        )
        self.loop.event(
            f"{request.operation} {request.key} of {request.who}: {outcome} ({request.fate}) "
            f"{len(request.body)} {crc:08x}"
        )

    def _reply(self, request: Request, value: Any, error: RequestFailed | None) -> None:
        if parted(self.loop, self.name, request.host):
            return
        if request.process is None:
            later = self.loop.in_world
        else:
            later = request.process.call_later
        later(self.faults.latency.draw(self.random) / 4, _answer, request.answer, value, error)

    def _time_out(self, request: Request) -> None:
        _answer(request.answer, None, RequestFailed(f"no answer within {self.faults.timeout_s:g} s", None))


class BucketClient:
    """Implements StoreClient."""

    def __init__(self, bucket: SimBucket, url: str, prefix: str) -> None:
        self.url = url
        self._bucket = bucket
        self._prefix = prefix

    async def put(self, key: str, body: bytes, *, create: bool) -> None:
        assert isinstance(body, bytes), "a body must not change after it was handed over"
        name = self._prefix + key
        await self._bucket.request("create" if create else "put", name, partial(self._put, name, body, create), body)

    async def get(self, key: str) -> bytes:
        name = self._prefix + key
        return await self._bucket.request("get", name, partial(self._get, name))

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        name = self._prefix + key
        return await self._bucket.request("get_range", name, lambda: self._get(name)[start : start + length])

    async def delete(self, keys: Sequence[str]) -> None:
        assert len(keys) <= DELETE_KEYS_MAX
        names = [self._prefix + key for key in keys]
        await self._bucket.request("delete", " ".join(names), partial(self._delete, names))

    async def list(self, folder: str, after: str) -> list[ObjectMeta]:
        return await self._bucket.request("list", self._prefix + folder, lambda: self._page(folder, after))

    def _put(self, name: str, body: bytes, create: bool) -> None:
        if create and name in self._bucket.objects:
            raise RequestFailed(f"status 412: {name} exists", 412)
        self._bucket.objects[name] = body

    def _get(self, name: str) -> bytes:
        if name not in self._bucket.objects:
            raise RequestFailed(f"status 404: there is no {name}", 404)
        return self._bucket.objects[name]

    def _delete(self, names: Sequence[str]) -> None:
        for name in names:
            self._bucket.objects.pop(name, None)

    def _page(self, folder: str, after: str) -> Sequence[ObjectMeta]:
        start = self._prefix + folder
        found = sorted(name for name in self._bucket.objects if name.startswith(start))
        first = bisect_right(found, self._prefix + after) if after else 0
        page = found[first : first + LIST_PAGE_KEYS]
        return [ObjectMeta(name[len(self._prefix) :], len(self._bucket.objects[name])) for name in page]


def _answer(answer: "asyncio.Future[Any]", value: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(value)
    else:
        answer.set_exception(error)

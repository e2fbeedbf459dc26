"""A TCP proxy in front of a real S3 server that makes chosen requests go wrong, on a thread of its own.

`proxy.plan("create", "wal/", "reset_after")` is for the next matching request; `proxy.random(seed, {"503": 0.1})` for
each one, drawn from seed, operation, key and how often that pair was seen, so that the order of arrival does not matter.
Operations: put, create, get, get_range, delete, list, multipart_start, _part, _complete, _abort; "" is any. Keys are
those in the folder; a list's is its prefix, a batch delete's is empty. What can happen:

  reset_before, 500, 501, 503, 409, hang        the server never sees the request
  reset_within                                  it sees half of it; without_body: its head only
  reset_after, applied_500, applied_503, applied_409, applied_hang
                                                it carries it out, and its answer is lost
  late_503                                      503 now; the server sees it at `land()`
  cut                                           half of the answer's body, then a closed connection
  slow                                          nothing bad, after SLOW_S

`down()` and `up()`: nobody listens, for a while. `delay_s` slows every request. `heal()` ends all but what is under way.
Knows as much of HTTP/1.1 as an S3 client and server speak: kept connections, lengths and chunks, no pipelining.
What a request is (`classify`) and how its server words an error (`error_answer`) is S3's here; a subclass may change it.
"""

import asyncio
import re
import threading
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from support.proxy_thread import ProxyThread, reset

T = TypeVar("T")

SLOW_S = 0.05
CODES = {500: "InternalError", 501: "NotImplemented", 503: "SlowDown", 409: "ConditionalRequestConflict"}
STATUS_FAULTS = {str(code) for code in CODES} | {"late_503"}
APPLIED_FAULTS = {"reset_after", "applied_500", "applied_503", "applied_409", "applied_hang"}
FAULTS = STATUS_FAULTS | APPLIED_FAULTS | {"reset_before", "reset_within", "without_body", "hang", "cut", "slow"}


@dataclass(frozen=True, slots=True)
class Message:
    """A request or an answer, byte for byte."""

    head: bytes
    headers: dict[str, str]
    body: bytes

    @property
    def start(self) -> list[str]:
        return self.head.split(b"\r\n", 1)[0].decode().split(" ", 2)

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


@dataclass(slots=True)
class Planned:
    operation: str
    key_prefix: str
    fault: str
    times: int


class FaultProxy(ProxyThread):
    known_faults = frozenset(FAULTS)

    def __init__(self, upstream: str, folder: str) -> None:
        """`upstream`: http://host:port; `folder`: bucket/prefix, which keys are told without."""
        super().__init__("fault-proxy")
        url = urlsplit(upstream)
        self._folder = folder
        self._upstream = (url.hostname, url.port)
        self._lock = threading.Lock()  # the plan and the counts: tests change and read them from their own thread
        self._planned: list[Planned] = []
        self._rates: dict[str, float] = {}
        self._seed = 0
        self._seen: Counter[tuple[str, str]] = Counter()
        self._late: list[Message] = []
        self.delay_s = 0.0
        self.requests: Counter[str] = Counter()
        self.faults: Counter[tuple[str, str]] = Counter()  # by operation and fault
        self.faults_of_key: Counter[str] = Counter()

    # -- for tests -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> "FaultProxy":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def plan(self, operation: str, key_prefix: str, fault: str, times: int = 1) -> None:
        assert fault in self.known_faults, fault
        with self._lock:
            self._planned.append(Planned(operation, key_prefix, fault, times))

    def random(self, seed: int, rates: dict[str, float]) -> None:
        assert rates.keys() <= self.known_faults and sum(rates.values()) <= 1, rates
        with self._lock:
            self._seed, self._rates = seed, rates

    def heal(self) -> None:
        with self._lock:
            self._planned, self._rates, self.delay_s = [], {}, 0.0

    def land(self) -> None:
        """The late requests reach the server now."""
        with self._lock:
            late, self._late = self._late, []
        for message in late:
            self.run(self._land(message))

    # -- the protocol --------------------------------------------------------------------------------------------------

    def classify(self, request: Message) -> tuple[str, str]:
        """The operation and the key of a request."""
        return classify(request, self._folder)

    def error_answer(self, status: int, request: Message) -> bytes:
        """What the server would say."""
        return error_answer(status, without_body=request.start[0] == "HEAD")

    # -- on the thread -------------------------------------------------------------------------------------------------

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection, and one to the server that goes with it."""
        upstream: asyncio.StreamWriter | None = None
        try:
            answers, upstream = await asyncio.open_connection(*self._upstream)
            while request := await read_message(reader, invite=writer):
                fault = self._next_fault(request)
                await asyncio.sleep(self.delay_s + (SLOW_S if fault == "slow" else 0))
                if not await self._exchange(request, fault, (answers, upstream), (reader, writer)):
                    return
        except (asyncio.IncompleteReadError, OSError):
            reset(writer)  # one side went away in the middle of something: so does the other
        finally:
            writer.close()
            if upstream is not None:
                upstream.close()

    async def _exchange(
        self,
        request: Message,
        fault: str,
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> bool:
        """One request and its answer; False if the connection is done for."""
        reader, writer = client
        if fault == "reset_before":
            reset(writer)
            return False
        if fault in ("reset_within", "without_body"):
            server[1].write(half_of(request) if fault == "reset_within" else request.head)
            await server[1].drain()
            reset(writer)
            return False
        answer = None
        if fault.startswith("applied_") or fault in ("reset_after", "", "cut", "slow"):
            answer = await forward(request, *server)
        if fault == "late_503":
            with self._lock:
                self._late.append(request)
        if fault.endswith("hang"):
            await reader.read(1)  # until the client gives up
            return False
        if fault == "reset_after":
            reset(writer)
            return False
        if fault[-3:].isdigit():
            writer.write(self.error_answer(int(fault[-3:]), request))
            await writer.drain()
            return True
        assert answer is not None
        writer.write(answer.head + (answer.body[: len(answer.body) // 2] if fault == "cut" else answer.body))
        await writer.drain()
        return fault != "cut" and not answer.closes and not request.closes

    async def _land(self, request: Message) -> None:
        reader, writer = await asyncio.open_connection(*self._upstream)
        await forward(request, reader, writer)
        writer.close()

    def _next_fault(self, request: Message) -> str:
        operation, key = self.classify(request)
        with self._lock:
            self.requests[operation] += 1
            self._seen[operation, key] += 1
            fault = self._planned_fault(operation, key) or self._random_fault(operation, key)
            if fault:
                self.faults[operation, fault] += 1
                self.faults_of_key[key] += 1
        return fault

    def _planned_fault(self, operation: str, key: str) -> str:
        for planned in self._planned:
            if planned.operation in ("", operation) and key.startswith(planned.key_prefix):
                planned.times -= 1
                if planned.times == 0:
                    self._planned.remove(planned)
                return planned.fault
        return ""

    def _random_fault(self, operation: str, key: str) -> str:
        drawn = Random(f"{self._seed} {operation} {key} {self._seen[operation, key]}").random()
        for fault, rate in self._rates.items():
            drawn -= rate
            if drawn < 0:
                return fault
        return ""


async def read_message(
    reader: asyncio.StreamReader, *, without_body: bool = False, invite: asyncio.StreamWriter | None = None
) -> Message | None:
    """None at the end of the connection. A client that asks first whether it may send the body is told so (`invite`),
    and the server is not asked."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    lines = head.decode("latin-1").split("\r\n")[1:]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    if headers.pop("expect", "").lower() == "100-continue" and invite is not None:
        head = re.sub(rb"(?im)^expect:.*\r\n", b"", head)
        invite.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = b""
    if without_body:
        pass
    elif headers.get("transfer-encoding", "").lower() == "chunked":
        body = await read_chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Message(head, headers, body)


async def read_chunks(reader: asyncio.StreamReader) -> bytes:
    """A chunked body as it is, its framing included."""
    raw = bytearray()
    while True:
        line = await reader.readuntil(b"\r\n")
        raw += line
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            break
        raw += await reader.readexactly(size + 2)
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":  # trailers
        raw += line
    return bytes(raw + line)


async def forward(request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Message:
    writer.write(request.head)
    writer.write(request.body)
    await writer.drain()
    answer = await read_message(reader, without_body=request.start[0] == "HEAD")
    if answer is None:
        raise ConnectionResetError("the server closed the connection instead of answering")
    return answer


def half_of(request: Message) -> bytes:
    """A part that no server can take for the whole; a head without any body some do."""
    if len(request.body) < 2:
        return request.head[: len(request.head) // 2]
    return request.head + request.body[: len(request.body) // 2]


def classify(request: Message, folder: str) -> tuple[str, str]:
    """The operation, and the key in the folder."""
    method, target, _ = request.start
    url = urlsplit(target)
    query = parse_qs(url.query, keep_blank_values=True)
    path = unquote(url.path).lstrip("/") + "/" + query.get("prefix", [""])[0]
    key = path.removeprefix(folder).strip("/")
    if "uploads" in query:
        return "multipart_start", key
    if "uploadId" in query:
        return {"PUT": "multipart_part", "POST": "multipart_complete", "DELETE": "multipart_abort"}[method], key
    if "list-type" in query:
        return "list", key
    if "delete" in query:
        return "delete", ""
    if method == "PUT":
        return ("create" if "if-none-match" in request.headers else "put"), key
    if method == "GET":
        return ("get_range" if "range" in request.headers else "get"), key
    return {"DELETE": "delete", "HEAD": "get"}[method], key


def error_answer(status: int, *, without_body: bool) -> bytes:
    body = f"<Error><Code>{CODES[status]}</Code><Message>planned by a test</Message></Error>".encode()
    head = f"HTTP/1.1 {status} {CODES[status]}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + (b"" if without_body else body)

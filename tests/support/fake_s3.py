"""An S3 server of one bucket, small enough to misbehave on command: what real ones do once a week, here every time.

`server.misbehave("PUT", "apply_500")` plans the answer to the next PUT. Answers:
  apply_500, apply_reset, apply_hang   the request is carried out, then: a server error, a closed connection, silence
  500, 503, 409, 403, reset            the same without carrying it out
  late_503                             503 now, carried out at `server.land()`
  cut                                  a GET whose body ends half way
  torn                                 a PUT that keeps half of the body, then a closed connection
Knows PUT, GET, HEAD with ranges and If-None-Match: *. `honours_conditions=False` makes it ignore the latter.
"""

import asyncio
from collections.abc import Callable
from urllib.parse import unquote

from support.wait import DEADLINE_S

REASONS = {
    200: "OK",
    206: "Partial Content",
    404: "Not Found",
    412: "Precondition Failed",
    416: "Range Not Satisfiable",
}
CODES = {404: "NoSuchKey", 412: "PreconditionFailed", 416: "InvalidRange", 503: "SlowDown", 403: "AccessDenied"}


def give_up_s(test: str) -> float:
    """A client's patience with one request: little only in tests, by their names, where an answer never comes."""
    return 1.0 if "hang" in test else DEADLINE_S


class FakeS3:
    def __init__(self, *, honours_conditions: bool = True) -> None:
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.honours_conditions = honours_conditions
        self.port = 0
        self._planned: list[tuple[str, str]] = []
        self._late: list[Callable[[], int]] = []
        self._server: asyncio.Server | None = None
        self._connections: list[asyncio.Task[None]] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def misbehave(self, method: str, answer: str, times: int = 1) -> None:
        self._planned += [(method, answer)] * times

    def land(self) -> None:
        for apply in self._late:
            apply()
        self._late.clear()

    async def __aenter__(self) -> "FakeS3":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.append(asyncio.get_running_loop().create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, path, _ = head[0].split()
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                key = unquote(path.partition("?")[0]).split("/", 2)[-1]
                self.requests.append(method)
                if not self._answer(writer, method, key, headers, body):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(
        self, writer: asyncio.StreamWriter, method: str, key: str, headers: dict[str, str], body: bytes
    ) -> bool:
        """Answer one request; False if the connection is done for."""
        plan = next((answer for wanted, answer in self._planned if wanted == method), "")
        if plan:
            self._planned.remove((method, plan))
        if plan == "late_503":
            self._late.append(lambda: self._carry_out(method, key, headers, body)[0])
        if plan == "torn":
            self._carry_out(method, key, headers, body[: len(body) // 2])
            writer.transport.abort()
            return False
        carried_out = plan.startswith("apply_") or plan in ("", "cut")
        status, data = self._carry_out(method, key, headers, body) if carried_out else (0, b"")
        trouble = plan.removeprefix("apply_").removeprefix("late_")
        if trouble == "reset":
            writer.transport.abort()
            return False
        if trouble == "hang":
            return True
        if trouble.isdigit():
            status, data = int(trouble), b""
        if status >= 400 and not data:
            data = f"<Error><Code>{CODES.get(status, 'InternalError')}</Code></Error>".encode()
        extra = ""
        if status == 206:
            first = int(headers["range"].removeprefix("bytes=").split("-")[0])
            extra = f"Content-Range: bytes {first}-{first + len(data) - 1}/{len(self.objects[key])}\r\n"
        date = "Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT"
        top = f'HTTP/1.1 {status} {REASONS.get(status, "No")}\r\nETag: "x"\r\n{date}\r\n{extra}Content-Length: {len(data)}\r\n\r\n'
        if trouble == "cut":
            writer.write(top.encode() + data[: len(data) // 2])
            writer.close()
            return False
        writer.write(top.encode() + (b"" if method == "HEAD" else data))
        return True

    def _carry_out(self, method: str, key: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        if method == "PUT":
            if key in self.objects and self.honours_conditions and "if-none-match" in headers:
                return 412, b""
            self.objects[key] = body
            return 200, b""
        if key not in self.objects:
            return 404, b""
        data = self.objects[key]
        if "range" not in headers:
            return 200, data
        first, last = (int(n) for n in headers["range"].removeprefix("bytes=").split("-"))
        return (206, data[first : last + 1]) if first < len(data) else (416, b"")

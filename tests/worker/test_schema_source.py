"""The schema registry as the table worker asks it, against a small HTTP server that misbehaves on demand."""

import json
import socketserver
import threading
from collections.abc import Iterator

import pytest

from streamlake.core.errors import Invalid, NotFound, Unavailable
from streamlake.table.formats.port import Reference, WriterSchema
from streamlake.worker import schema_source
from streamlake.worker.schema_source import HttpSchemaSource


class Registry(socketserver.ThreadingTCPServer):
    """Answers every request with the same bytes, and remembers what was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answer = b""
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def says(self, body: object, status: str = "200 OK") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


class Handler(socketserver.StreamRequestHandler):
    server: Registry

    def handle(self) -> None:
        self.server.asked.append(self.rfile.readline().decode().split(" ")[1])
        while self.rfile.readline() not in (b"\r\n", b""):
            pass
        self.wfile.write(self.server.answer)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        thread = threading.Thread(target=registry.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield registry
        registry.shutdown()
        thread.join()


@pytest.fixture
def source(registry: Registry) -> HttpSchemaSource:
    return HttpSchemaSource(registry.url + "/")


@pytest.mark.parametrize("extra", [{}, {"schemaType": "AVRO"}])
def test_a_schema_by_its_id(registry: Registry, source: HttpSchemaSource, extra: dict[str, str]) -> None:
    registry.says({"schema": '"string"', **extra})
    assert source.get(7) == WriterSchema("AVRO", '"string"')
    assert registry.asked == ["/schemas/ids/7"]


def test_one_that_nobody_knows(registry: Registry, source: HttpSchemaSource) -> None:
    registry.says({"error_code": 40403, "message": "Schema not found"}, "404 Not Found")
    with pytest.raises(NotFound, match="has no schema with id 8"):
        source.get(8)


def test_one_of_another_kind_and_its_references(registry: Registry, source: HttpSchemaSource) -> None:
    references = [{"name": "other.proto", "subject": "other", "version": 3}]
    registry.says({"schema": "syntax = ...", "schemaType": "PROTOBUF", "references": references})
    found = WriterSchema("PROTOBUF", "syntax = ...", (Reference("other.proto", "other", 3),))
    assert source.get(1) == found


@pytest.mark.parametrize("answer", [{"schema": "…", "schemaType": None}, {"schema": {"type": "string"}}])
def test_one_that_is_no_text(registry: Registry, source: HttpSchemaSource, answer: dict[str, object]) -> None:
    registry.says(answer)
    with pytest.raises(Invalid, match="schema 1 has type"):
        source.get(1)


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable", "401 Unauthorized"])
def test_a_registry_that_fails_is_asked_again_later(registry: Registry, source: HttpSchemaSource, status: str) -> None:
    registry.says({}, status)
    with pytest.raises(Unavailable, match=status[:3]):
        source.get(1)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"what?\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nnot json",
        b"HTTP/1.1 200 OK\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b'HTTP/1.1 200 OK\r\n\r\n{"schema": "", "references": [1]}',
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
        b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe",
    ],
    ids=range(11),
)
def test_what_no_registry_says_is_no_schema(registry: Registry, source: HttpSchemaSource, answer: bytes) -> None:
    """A record whose schema cannot be had now must wait, and not become a dead letter."""
    registry.answer = answer
    with pytest.raises(Unavailable):
        source.get(1)


def test_one_that_is_too_large(registry: Registry, source: HttpSchemaSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_source, "SCHEMA_BYTES_MAX", 100)
    registry.says({"schema": "x" * 200})
    with pytest.raises(Invalid, match="larger than 100 bytes"):
        source.get(1)


def test_nobody_listens() -> None:
    with Registry() as gone:
        url = gone.url
    with pytest.raises(Unavailable, match="cannot be reached"):
        HttpSchemaSource(url).get(1)


def test_a_registry_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_source, "TIMEOUT_S", 0.05)
    silent = socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler)  # accepts nothing: never served
    with silent, pytest.raises(Unavailable):
        HttpSchemaSource(f"http://127.0.0.1:{silent.server_address[1]}").get(1)


def test_a_proxy_from_the_environment_is_not_used(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is on this machine; a company's proxy cannot reach it."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    registry.says({"schema": '"string"'})
    assert HttpSchemaSource(registry.url).get(7).text == '"string"'

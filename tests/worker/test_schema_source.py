"""The schema registry as the table worker asks it, against a small HTTP server that misbehaves on demand."""

import json
import socketserver
import threading
from collections.abc import Iterator

import pytest

from streamlake.core.clock import SystemClock
from streamlake.core.errors import Invalid, NotFound, Unavailable
from streamlake.table.formats.port import LatestSchema, Reference, WriterSchema
from streamlake.worker import schema_source
from streamlake.worker.schema_source import Busy, HttpSchemaSource


class Registry(socketserver.ThreadingTCPServer):
    """Answers every request with the same bytes, and remembers what was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answer = b""
        self.answers: dict[str, bytes] = {}  # by path without query: instead of the other
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def says(self, body: object, status: str = "200 OK", at: str | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
        if at is None:
            self.answer = answer
        else:
            self.answers[at] = answer


class Handler(socketserver.StreamRequestHandler):
    server: Registry

    def handle(self) -> None:
        path = self.rfile.readline().decode().split(" ")[1]
        self.server.asked.append(path)
        while self.rfile.readline() not in (b"\r\n", b""):
            pass
        self.wfile.write(self.server.answers.get(path.partition("?")[0], self.server.answer))


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
    return HttpSchemaSource(registry.url + "/", SystemClock())


@pytest.mark.parametrize("extra", [{}, {"schemaType": "AVRO"}])
def test_a_schema_by_its_id(registry: Registry, source: HttpSchemaSource, extra: dict[str, str]) -> None:
    registry.says({"schema": '"string"', **extra})
    assert source.get(7) == WriterSchema("AVRO", '"string"')
    assert registry.asked == ["/schemas/ids/7?format=serialized"]


def test_the_newest_of_a_subject(registry: Registry, source: HttpSchemaSource) -> None:
    registry.says({"subject": "a/b", "version": 3, "id": 12, "schema": '"string"'})
    assert source.latest("a/b") == LatestSchema(12, WriterSchema("AVRO", '"string"'))
    assert registry.asked == ["/subjects/a%2Fb/versions/latest?format=serialized"]
    registry.says({"schema": '"string"'})
    with pytest.raises(Unavailable, match="has no id"):
        source.latest("s")
    registry.says({"error_code": 40401, "message": "Subject not found"}, "404 Not Found")
    with pytest.raises(NotFound, match="the schema registry has no subject 's'"):
        source.latest("s")


def test_one_that_nobody_knows(registry: Registry, source: HttpSchemaSource) -> None:
    registry.says({"error_code": 40403, "message": "Schema not found"}, "404 Not Found")
    with pytest.raises(NotFound, match="has no schema with id 8"):
        source.get(8)


def protobuf(text: str, *references: tuple[str, str, int]) -> dict[str, object]:
    found = [{"name": name, "subject": subject, "version": version} for name, subject, version in references]
    return {"schema": text, "schemaType": "PROTOBUF", "references": found}


def test_one_of_another_kind_and_its_references(registry: Registry, source: HttpSchemaSource) -> None:
    """Those that several refer to are asked for once."""
    registry.says(protobuf("main", ("a/b.proto", "a/b", 3), ("c.proto", "c", 1)), at="/schemas/ids/1")
    registry.says(protobuf("b", ("c.proto", "c", 1)), at="/subjects/a%2Fb/versions/3")
    registry.says(protobuf("c"), at="/subjects/c/versions/1")
    c = Reference("c.proto", "c", 1, WriterSchema("PROTOBUF", "c"))
    b = Reference("a/b.proto", "a/b", 3, WriterSchema("PROTOBUF", "b", (c,)))
    assert source.get(1) == WriterSchema("PROTOBUF", "main", (b, c))
    assert registry.asked[1:] == [
        "/subjects/a%2Fb/versions/3?deleted=true&format=serialized",
        "/subjects/c/versions/1?deleted=true&format=serialized",
    ]


def test_references_of_other_kinds_are_not_asked_for(registry: Registry, source: HttpSchemaSource) -> None:
    registry.says({**protobuf('"int"', ("x", "x", 1)), "schemaType": "AVRO"})
    assert source.get(1) == WriterSchema("AVRO", '"int"', (Reference("x", "x", 1),))
    assert len(registry.asked) == 1


def test_references_that_cannot_be_had(
    registry: Registry, source: HttpSchemaSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.says(protobuf("main", ("a", "a", 1)), at="/schemas/ids/1")
    registry.says({"error_code": 40402}, "404 Not Found", at="/subjects/a/versions/1")
    with pytest.raises(Invalid, match="schema 1 refers to version 1 of subject 'a', and the schema registry has no"):
        source.get(1)
    registry.says(protobuf("a", ("b", "b", 1)), at="/subjects/a/versions/1")
    registry.says(protobuf("b", ("a", "a", 1)), at="/subjects/b/versions/1")
    with pytest.raises(Invalid, match="refers to itself by way of 'a'"):
        source.get(1)
    registry.says(protobuf("b"), at="/subjects/b/versions/1")
    registry.says(protobuf("main", ("a", "a", 1), ("b", "b", 1)), at="/schemas/ids/1")
    monkeypatch.setattr(schema_source, "REFERENCES_MAX", 1)
    with pytest.raises(Invalid, match="refers to more than 1 schemas"):
        source.get(1)
    registry.says({}, "500 Internal Server Error", at="/subjects/a/versions/1")
    with pytest.raises(Unavailable):
        source.get(1)
    registry.says(protobuf("main", ("a", "a", "1")), at="/schemas/ids/1")  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="references that are none"):
        source.get(1)


@pytest.mark.parametrize("answer", [{"schema": "…", "schemaType": None}, {"schema": {"type": "string"}}])
def test_one_that_is_no_text(registry: Registry, source: HttpSchemaSource, answer: dict[str, object]) -> None:
    registry.says(answer)
    with pytest.raises(Invalid, match="schema with id 1 has type"):
        source.get(1)


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable", "401 Unauthorized"])
def test_a_registry_that_fails_is_asked_again_later(registry: Registry, source: HttpSchemaSource, status: str) -> None:
    registry.says({}, status)
    with pytest.raises(Unavailable, match=status[:3]):
        source.get(1)


@pytest.mark.parametrize("body", [b"<html>not here</html>", b"{}", b"[]", b'{"error_code": 404}', b"[" * 5_000])
def test_a_404_that_is_not_the_registrys_own_is_no_verdict(
    registry: Registry, source: HttpSchemaSource, body: bytes
) -> None:
    """A proxy's, or that of a wrong address: it must not make dead letters of all records."""
    registry.says(body, "404 Not Found")
    with pytest.raises(Unavailable, match="answered 404"):
        source.get(1)
    with pytest.raises(Unavailable, match="answered 404"):
        source.latest("s")


def test_credentials_that_are_refused_say_which_keys_to_set(registry: Registry, source: HttpSchemaSource) -> None:
    for status in ("401 Unauthorized", "403 Forbidden"):
        registry.says({"error_code": 40101, "message": "who?"}, status)
        with pytest.raises(Unavailable, match=r"refuses us \(40[13]\): set registry\.username and"):
            source.get(1)


def test_a_registry_may_ask_for_a_pause(registry: Registry, source: HttpSchemaSource) -> None:
    for status, header, pause_s in (("429 Too Many", "7", 7), ("503 Busy", "120", 120), ("503 Busy", "soon", None)):
        registry.answer = f"HTTP/1.1 {status}\r\nRetry-After: {header}\r\nContent-Length: 0\r\n\r\n".encode()
        with pytest.raises(Unavailable) as caught:
            source.get(1)
        assert (caught.value.pause_s if isinstance(caught.value, Busy) else None) == pause_s


def test_an_answer_that_never_ends_is_given_up(
    registry: Registry, source: HttpSchemaSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_source, "ANSWER_TIMEOUT_S", -1.0)
    registry.says({"schema": '"string"'})
    with pytest.raises(Unavailable, match="took over"):
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
        HttpSchemaSource(url, SystemClock()).get(1)


def test_a_registry_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_source, "TIMEOUT_S", 0.05)
    silent = socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler)  # accepts nothing: never served
    with silent, pytest.raises(Unavailable):
        HttpSchemaSource(f"http://127.0.0.1:{silent.server_address[1]}", SystemClock()).get(1)


def test_a_proxy_from_the_environment_is_not_used(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is on this machine; a company's proxy cannot reach it."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    registry.says({"schema": '"string"'})
    assert HttpSchemaSource(registry.url, SystemClock()).get(7).text == '"string"'

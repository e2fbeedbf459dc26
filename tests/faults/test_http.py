"""What strangers send to the HTTP port: an answer that says what is wrong, and a server that does not notice."""

import http.client
import json
import socket
from typing import Any

import pytest
from support.server import Server
from support.wait import DEADLINE_S

from streamlake.bench.process import cpu_s

MIB = 1 << 20
REGISTER = "/subjects/hostile/versions"
JSON = {"Content-Type": "application/vnd.schemaregistry.v1+json"}


def ask(server: Server, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=DEADLINE_S)
    try:
        connection.request(method, path, body, JSON)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (ConnectionResetError, BrokenPipeError):
        return 413, b'{"error_code": 413, "message": "closed before all was sent: the answer may be lost by that"}'
    finally:
        connection.close()


def schema(text: Any) -> bytes:
    return json.dumps({"schema": text if isinstance(text, str) else json.dumps(text)}).encode()


def nested(levels: int) -> str:
    return '{"type":"array","items":' * levels + '"int"' + "}" * levels


HOSTILE = {
    "deep JSON": (b"[" * 500_000, {400, 422}),
    "deep JSON, closed": (b'{"schema":' + b"[" * 100_000 + b"]" * 100_000 + b"}", {400, 422}),
    "10 MB of JSON": (b'{"schema":"' + b"x" * 10 * MIB + b'"}', {413}),
    "not JSON": (b"\xff\xfe\x00", {400, 422}),
    "nothing": (b"", {400, 422}),
    "a list": (b"[]", {400, 422}),
    "no schema": (b"{}", {422}),
    "a schema that is a number": (b'{"schema": 1}', {400, 422}),
    "a schema that is no JSON": (schema("{"), {422}),
    "a deep schema": (schema(nested(20_000)), {422}),
    "a schema of 200 levels": (schema(nested(200)), {200, 422}),
    "a type nobody knows": (schema({"type": "complex"}), {422}),
    "a name with slashes": (schema({"type": "record", "name": "../x", "fields": []}), {422}),
    "a default of the wrong type": (
        schema({"type": "record", "name": "R", "fields": [{"name": "a", "type": "int", "default": "x"}]}), {200, 422},
    ),
    "the same field twice": (
        schema({"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}] * 2}), {422},
    ),
    "a fixed of 2 GB": (schema({"type": "fixed", "name": "F", "size": 2**31}), {200, 422}),
    "a fixed of negative size": (schema({"type": "fixed", "name": "F", "size": -1}), {422}),
    "a decimal of a billion digits": (
        schema({"type": "bytes", "logicalType": "decimal", "precision": 10**9, "scale": 0}), {200, 422},
    ),
    "lone surrogates": (b'{"schema": "\\"\\ud800\\""}', {400, 422}),
    "a number of 100,000 digits": (schema('{"type":"fixed","name":"F","size":' + "9" * 100_000 + "}"), {422}),
    "20,000 fields": (
        schema({"type": "record", "name": "R", "fields": [{"name": f"f{i}", "type": "int"} for i in range(20_000)]}),
        {200, 413, 422},
    ),
    "a kind that nobody knows": (json.dumps({"schema": "{}", "schemaType": "XML"}).encode(), {422}),
    "a JSON Schema elsewhere": (
        json.dumps({"schema": '{"$ref": "http://127.0.0.1:9/x.json"}', "schemaType": "JSON"}).encode(), {422},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_schemas(server: Server, what: str) -> None:
    body, expected = HOSTILE[what]
    for path in (
        f"/subjects/hostile-{list(HOSTILE).index(what)}/versions",
        "/compatibility/subjects/x/versions/latest",
    ):
        before = cpu_s(server.process.pid)
        status, answer = ask(server, "POST", path, body)
        assert status in expected | {404}, (status, answer[:300])
        if status >= 400:
            error = json.loads(answer)
            assert error["message"] and isinstance(error["error_code"], int)
            assert len(answer) < 5000, "the message repeats what was sent"
        assert cpu_s(server.process.pid) - before < 20
    assert ask(server, "GET", "/healthz")[0] == 200


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/subjects/../../etc/passwd", 404),
        ("GET", "/subjects/x/versions/nine", 422),
        ("GET", "/subjects/x/versions/0", 422),
        ("GET", "/subjects/x/versions/99999999999999999999", 422),
        ("GET", "/schemas/ids/-1", 404),
        ("GET", "/schemas/ids/99999999999999999999", 404),
        ("GET", "/schemas/ids/" + "9" * 5000, 404),
        ("GET", "/schemas/ids/%00", 404),
        ("GET", "/subjects/%ff%fe/versions", 404),
        ("GET", "/subjects/" + "x" * 5000 + "/versions", 404),
        ("GET", "/subjects?limit=x", 400),
        ("GET", "/subjects?offset=" + "9" * 5000, 400),
        ("DELETE", "/subjects/there-is-none", 404),
        ("PUT", "/config", 422),
        ("PATCH", "/subjects", 405),
        ("DELETE", "/healthz", 405),
        ("POST", "/v1/tables", 405),
    ],
)  # fmt: skip
def test_paths_and_methods(server: Server, method: str, path: str, status: int) -> None:
    body = b"{}" if method in ("PUT", "PATCH", "POST") else None
    found, answer = ask(server, method, path, body)
    assert found == status, answer[:300]
    assert b"Traceback" not in answer and b"sqlite" not in answer.lower()


def raw(server: Server, data: bytes) -> bytes:
    """Send bytes; what comes back until the server closes or says no more."""
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=DEADLINE_S) as client:
        answer = b""
        try:
            client.sendall(data)  # the server may have enough before it has all, and close
            client.shutdown(socket.SHUT_WR)
            while part := client.recv(65_536):
                answer += part
        except OSError:
            pass
        return answer


def test_bytes_that_are_not_http(server: Server) -> None:
    for data in (b"\x00\x01\x02", b"GET\r\n\r\n", b"\x16\x03\x01" + bytes(300), b"POST / HTTP/9.9\r\n\r\n",
                 b"GET / HTTP/1.1\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
                 b"POST /subjects/a/versions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                 b"POST /subjects/a/versions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n"):  # fmt: skip
        answer = raw(server, data)
        assert not answer or answer.startswith(b"HTTP/1.1 4"), answer[:200]
    assert ask(server, "GET", "/healthz")[0] == 200
    assert "Traceback" not in server.log


def test_a_body_that_never_comes_holds_nobody_up(server: Server) -> None:
    clients = []
    for _ in range(50):
        client = socket.create_connection(("127.0.0.1", server.http_port), timeout=DEADLINE_S)
        client.sendall(b"POST /subjects/a/versions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n{")
        clients.append(client)
    assert ask(server, "GET", "/subjects")[0] == 200
    for client in clients:
        client.close()
    assert ask(server, "GET", "/subjects")[0] == 200
    assert "Traceback" not in server.log

"""A TCP proxy in front of a catalog that does not speak HTTP: Hive Metastore (Thrift) or PostgreSQL.

    reset_before    the server never sees the request, and the connection is closed
    reset_after     it carries the request out, and the connection is closed instead of the answer
    error           Hive only: the server refuses the request (it is sent under a name that no server knows)
    applied_error   Hive only: it carries the request out, and the client is told of an internal error

Operations and counts are those of catalog_faults.py. A client must wait for an answer before its next request.
"""

import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Protocol

from support.catalog_faults import SQL_OPERATIONS

CHUNK_BYTES = 1 << 20
REST_IS_DROPPED = "rest of the answer is dropped"


class Wire(Protocol):
    """Understands what the client of one connection sends."""

    known_faults: frozenset[str]
    OPERATIONS: Mapping[bytes, str]

    def request(self, data: bytes) -> tuple[str, bytes] | None:
        """The operation that `data` asks for, and the bytes that name its table. None if it goes on with a request."""


class TcpFaults:
    """`connect` opens a connection to the server; `wire` makes the reader of a new connection."""

    def __init__(self, connect: Callable[[], socket.socket], wire: Callable[[], Wire]) -> None:
        self._connect = connect
        self._wire = wire
        self._lock = threading.Lock()  # the plan and the counts
        self._planned: list[tuple[str, str, str]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, name="tcp-faults", daemon=True)
        self._connections: list[Connection] = []
        self.operations = tuple(wire().OPERATIONS.values())
        self.port: int = self._listener.getsockname()[1]
        self.requests: Counter[str] = Counter()
        self.faults: Counter[tuple[str, str]] = Counter()

    def __enter__(self) -> "TcpFaults":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for connection in self._connections:
            connection.end()

    def plan(self, operation: str, table: str, fault: str) -> None:
        assert fault in self._wire().known_faults, fault
        with self._lock:
            self._planned.append((operation, table, fault))

    def heal(self) -> None:
        with self._lock:
            self._planned = []

    def fault_of(self, operation: str, request: bytes) -> str:
        with self._lock:
            self.requests[operation] += 1
            for planned in self._planned:
                name = planned[1].encode()
                # Thrift and PostgreSQL write the same before a text: its length in four bytes.
                if planned[0] == operation and len(name).to_bytes(4, "big") + name in request:
                    self._planned.remove(planned)
                    self.faults[operation, planned[2]] += 1
                    return planned[2]
        return ""

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # the end
                return
            try:
                server = self._connect()
            except OSError:
                client.close()
                continue
            for ended in [c for c in self._connections if not c.alive]:
                ended.end()
                self._connections.remove(ended)
            self._connections.append(Connection(self, client, server, self._wire()))


class Connection:
    """One client's connection, and one to the server that goes with it; a thread for each direction."""

    def __init__(self, faults: TcpFaults, client: socket.socket, server: socket.socket, wire: Wire) -> None:
        self._faults = faults
        self._client = client
        self._server = server
        self._wire = wire
        self._fault = ""  # what happens to the next answer
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._forward, self._answer)]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def end(self) -> None:
        self._shut_down()
        for thread in self._threads:
            thread.join()
        self._client.close()
        self._server.close()

    def _forward(self) -> None:
        with suppress(OSError):
            while data := self._client.recv(CHUNK_BYTES):
                request = self._wire.request(data)
                if request is not None:
                    self._fault = self._faults.fault_of(*request)
                if self._fault == "reset_before":
                    break
                self._server.sendall(misnamed(data) if request and self._fault == "error" else data)
        self._shut_down()

    def _answer(self) -> None:
        with suppress(OSError):
            while data := self._server.recv(CHUNK_BYTES):
                if self._fault == "reset_after":
                    break
                if self._fault == "applied_error":
                    self._fault = REST_IS_DROPPED  # before the client sees an answer: it may ask anew at once
                    self._client.sendall(internal_error(data))
                elif self._fault != REST_IS_DROPPED:
                    self._client.sendall(data)
        self._shut_down()

    def _shut_down(self) -> None:
        """Both ends, which wakes the other thread too."""
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class HiveWire:
    """Thrift's strict binary protocol, one message a request: version, type, name, number, arguments."""

    known_faults = frozenset({"reset_before", "reset_after", "error", "applied_error"})
    OPERATIONS = {b"create_table": "create", b"get_table": "load", b"alter_table_with_environment_context": "commit"}

    def request(self, data: bytes) -> tuple[str, bytes] | None:
        return (self.OPERATIONS.get(method_of(data), ""), data) if data.startswith(CALL) else None


CALL = b"\x80\x01\x00\x01"
EXCEPTION = b"\x80\x01\x00\x03"


def method_of(message: bytes) -> bytes:
    return message[8 : 8 + int.from_bytes(message[4:8], "big")]


def misnamed(message: bytes) -> bytes:
    """The same request for a method that no server has."""
    method = method_of(message)
    return message.replace(method, b"x" * len(method), 1)


def internal_error(answer: bytes) -> bytes:
    """A TApplicationException in the place of `answer`."""
    head = answer[4 : 12 + len(method_of(answer))]
    text = b"planned by a test"
    message = b"\x0b\0\x01" + len(text).to_bytes(4, "big") + text
    internal = b"\x08\0\x02" + (6).to_bytes(4, "big")
    return EXCEPTION + head + message + internal + b"\0"


class PostgresWire:
    """psycopg: a statement with its values (Parse once, later by name; Bind), and COMMIT as a request of its own.

    The answer to COMMIT tells whether a commit landed, so that is the request; its table is in the statement before."""

    known_faults = frozenset({"reset_before", "reset_after"})
    OPERATIONS = {verb.encode(): operation for operation, verb in SQL_OPERATIONS.items()}

    def __init__(self) -> None:
        self._prepared: dict[bytes, str] = {}
        self._statement = "", b""

    def request(self, data: bytes) -> tuple[str, bytes]:
        for verb, operation in self.OPERATIONS.items():
            self._prepared |= dict.fromkeys(re.findall(rb"(_pg3_\d+)\0" + verb, data), operation)
            if verb in data:
                self._statement = operation, data
        for name, operation in self._prepared.items():
            if b"\0" + name + b"\0" in data:
                self._statement = operation, data
        if b"COMMIT\0" not in data and b"ROLLBACK\0" not in data:
            return "", b""
        statement, self._statement = self._statement, ("", b"")
        return statement if b"COMMIT\0" in data else ("", b"")

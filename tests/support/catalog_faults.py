"""Catalog requests that go wrong on their way, over HTTP (Iceberg REST, AWS Glue) and in SQLite; tcp_faults.py has others.

Each offers `plan(operation, table, fault)` for the next such request, and counts `requests` (by operation) and `faults`
(by operation and fault). Operations: create, load, commit, "" for all else. `reset_after`, and what begins with
`applied_`, means that the server carried the request out.
"""

import json
import sqlite3
from collections import Counter
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy import event
from support.fault_proxy import FaultProxy, Message

STATUSES = {
    401: "NotAuthorizedException",
    409: "CommitFailedException",
    429: "TooManyRequestsException",
    500: "InternalServerError",
    502: "BadGatewayException",
    503: "ServiceUnavailableException",
    504: "GatewayTimeoutException",
}


SQL_OPERATIONS = {"create": "INSERT INTO iceberg_tables", "commit": "UPDATE iceberg_tables"}


class CatalogFaults(Protocol):
    """What a test may do, whatever the wire."""

    operations: tuple[str, ...]
    requests: Counter[str]
    faults: Counter[tuple[str, str]]

    def plan(self, operation: str, table: str, fault: str) -> None: ...

    def heal(self) -> None:
        """What is planned will not happen."""


class HttpCatalogFaults(FaultProxy):
    """In front of a catalog that speaks HTTP."""

    operations = ("create", "load", "commit")
    known_faults = frozenset(
        {"reset_before", "reset_after", *(f"{state}{status}" for state in ("", "applied_") for status in STATUSES)}
    )

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream, "")

    def plan(self, operation: str, table: str, fault: str, times: int = 1) -> None:
        super().plan(operation, f"{table}/", fault, times)  # the end of the name: `orders` is not `orders__dlq`


class RestFaults(HttpCatalogFaults):
    def classify(self, request: Message) -> tuple[str, str]:
        method, target, _ = request.start
        parts = [unquote(part) for part in urlsplit(target).path.split("/")]
        if "namespaces" not in parts or "tables" not in parts:
            return "", ""
        table = parts[parts.index("tables") + 1 :]
        if method == "POST" and not table:
            return "create", f"{json.loads(request.body)['name']}/"
        return {"POST": "commit", "GET": "load"}.get(method, ""), "".join(f"{name}/" for name in table)

    def error_answer(self, status: int, request: Message) -> bytes:
        error = {"message": "planned by a test", "type": STATUSES[status], "code": status}
        return answer(status, {"error": error}, "application/json")


class GlueFaults(HttpCatalogFaults):
    OPERATIONS = {"CreateTable": "create", "GetTable": "load", "UpdateTable": "commit"}

    def classify(self, request: Message) -> tuple[str, str]:
        operation = self.OPERATIONS.get(request.headers.get("x-amz-target", "").rpartition(".")[2], "")
        if not operation:
            return "", ""
        asked = json.loads(request.body)
        return operation, f"{asked.get('TableInput', asked)['Name']}/"

    def error_answer(self, status: int, request: Message) -> bytes:
        return answer(
            status, {"__type": STATUSES[status], "message": "planned by a test"}, "application/x-amz-json-1.1"
        )


def answer(status: int, content: dict[str, Any], content_type: str) -> bytes:
    body = json.dumps(content).encode()
    head = (
        f"HTTP/1.1 {status} {STATUSES[status]}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class SqliteFaults:
    """Between the catalog and its SQLite file, where COMMIT is called: `error` instead of it, `applied_error` after it.

    After `error` the transaction is open still, as after SQLite's "busy"."""

    known_faults = frozenset({"error", "applied_error"})
    operations = tuple(SQL_OPERATIONS)

    def __init__(self, catalog: SqlCatalog) -> None:
        self.requests: Counter[str] = Counter()
        self.faults: Counter[tuple[str, str]] = Counter()
        self._planned: list[tuple[str, str, str]] = []
        self._written: tuple[str, Any] = "", ()
        self._commit = catalog.engine.dialect.do_commit
        event.listen(catalog.engine, "before_cursor_execute", self._on_statement)
        catalog.engine.dialect.do_commit = self._do_commit  # type: ignore[method-assign]

    def plan(self, operation: str, table: str, fault: str) -> None:
        assert fault in self.known_faults, fault
        self._planned.append((operation, table, fault))

    def heal(self) -> None:
        self._planned = []

    def _on_statement(self, _: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        for operation, verb in SQL_OPERATIONS.items():
            if statement.startswith(verb):
                self._written = operation, parameters

    def _do_commit(self, connection: Any) -> None:
        (operation, parameters), self._written = self._written, ("", ())
        self.requests[operation] += 1
        planned = next((p for p in self._planned if p[0] == operation and p[1] in parameters), None)
        if planned is not None:
            self._planned.remove(planned)
            self.faults[operation, planned[2]] += 1
        if planned is None or planned[2] == "applied_error":
            self._commit(connection)
        if planned is not None:
            raise sqlite3.OperationalError("disk I/O error, planned by a test")

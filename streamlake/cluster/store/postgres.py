"""PostgreSQL under the metadata store: the session's settings, which errors mean what, and how not to wait for ever.

Every wait has an end. The server ends statements and waits for locks that take too long, and it ends a transaction
whose client says nothing (a paused broker would else hold its row locks against the whole cluster). A server that
itself says nothing is left by `Line.cut`: the thread that waits for it gets an error, as if the connection was lost.
"""

import os
import socket
import threading
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from streamlake.core.errors import Invalid

if TYPE_CHECKING:
    import psycopg

SCHEME = "postgresql"
DRIVER = "postgresql+psycopg"
CONNECT_TIMEOUT_S = 5
# synchronous_commit: a committed write survives a crash of the server, whatever its configuration says.
SESSION = {
    "synchronous_commit": "on",
    "statement_timeout": "10s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "5s",
}
# A machine that vanished (no answer, no reset) is noticed by TCP.
KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
RETRIED = frozenset({"40P01", "40001"})  # deadlock_detected, serialization_failure: one of two had to give way
DISK_FULL = "53100"


class Line:
    """The socket of the present connection, to be cut from another thread than the one that waits on it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def connected(self, connection: "psycopg.Connection[object]", _record: object) -> None:
        """A descriptor of our own: the driver's may be closed, and its number reused, at any moment."""
        with self._lock:
            self._close()
            self._socket = socket.socket(fileno=os.dup(connection.fileno()))

    def cut(self) -> None:
        """Shut the connection down in both directions; no error if there is none (any more)."""
        with self._lock:
            if self._socket is not None:
                try:
                    self._socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def engine(url: URL, line: Line) -> Engine:
    """Invalid if the URL asks for another driver."""
    if url.drivername not in (SCHEME, DRIVER):
        raise Invalid(f"{url.drivername} is not a driver that StreamLake uses: say postgresql://…")
    arguments = {"connect_timeout": CONNECT_TIMEOUT_S, **KEEPALIVE}
    made = create_engine(url.set(drivername=DRIVER), poolclass=NullPool, connect_args={**arguments, **url.query})
    event.listen(made, "connect", _configure)
    event.listen(made, "connect", line.connected)
    return made


def _configure(connection: "psycopg.Connection[object]", _record: object) -> None:
    connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in SESSION.items()))
    connection.commit()


def begin_snapshot(connection: Connection) -> None:
    """First in a transaction: all its statements see the database at one moment."""
    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


def must_retry(error: BaseException | None) -> bool:
    """True if the operation was undone because it was in another transaction's way: the next try may pass."""
    return _sqlstate(error) in RETRIED


def is_full(error: BaseException) -> bool:
    return _sqlstate(error) == DISK_FULL


def _sqlstate(error: BaseException | None) -> str | None:
    return getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None

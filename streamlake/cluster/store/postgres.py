"""PostgreSQL as the metadata store: the settings of a session, the meaning of its errors, and limits for all waits.

The server ends statements and waits for locks that take too long, and transactions of a silent client (a paused broker
would otherwise hold its row locks against the whole cluster). If the server itself is silent, `Line.cut` cuts the
connection: the thread that waits for it gets an error, as if the connection was lost.
"""

import os
import re
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
# synchronous_commit: a committed write survives a crash of the server, whatever the configuration of the server is.
# The limits add up to less than a broker's lease (membership.py): a broker that freezes in the middle of a transaction,
# or a statement that waits, must not keep others waiting until they are taken for dead.
SESSION = {
    "synchronous_commit": "on",
    "statement_timeout": "2s",
    "lock_timeout": "500ms",
    "idle_in_transaction_session_timeout": "1s",
}
READ_TIMEOUT_S = 10  # a read of a large table takes longer, and holds no row that somebody waits for
# TCP detects a machine that disappeared without a reset.
KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
# deadlock_detected, serialization_failure: the server chose one of two to undo. lock_not_available: that limit is lower
# than the time after which a server looks for deadlocks, so a deadlock ends like this, too.
RETRIED = frozenset({"40P01", "40001", "55P03"})
DISK_FULL = "53100"
READ_ONLY = "25006"
VERSION_MIN = 15


class Line:
    """The socket of the current connection, which another thread than the waiting one can cut."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def connected(self, connection: "psycopg.Connection[object]", _record: object) -> None:
        """Take a descriptor of our own: the driver may close its own at any time, and the number may be reused."""
        with self._lock:
            self._close()
            self._socket = socket.socket(fileno=os.dup(connection.fileno()))

    def cut(self) -> None:
        """Shut the connection down in both directions; no error if there is none."""
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
    """The first call in a transaction: all its statements see one snapshot of the database, and may take longer."""
    limits = ("statement_timeout", "idle_in_transaction_session_timeout")
    longer = (f"SET LOCAL {name} = '{READ_TIMEOUT_S}s'" for name in limits)
    connection.exec_driver_sql("; ".join(["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", *longer]))


def must_retry(error: BaseException | None) -> bool:
    """True if the operation was undone because it conflicted with another transaction: it may succeed when retried."""
    return _sqlstate(error) in RETRIED


def is_full(error: BaseException) -> bool:
    return _sqlstate(error) == DISK_FULL


def is_read_only(error: BaseException) -> bool:
    """A standby, or a primary that was made one."""
    return _sqlstate(error) == READ_ONLY


def require_version(connection: Connection) -> None:
    """Invalid if the server is older than those that StreamLake is tested with."""
    found: str = connection.exec_driver_sql("SHOW server_version").scalar_one()
    connection.rollback()
    if int(re.match(r"\d*", found)[0] or VERSION_MIN) < VERSION_MIN:  # type: ignore[index]
        raise Invalid(f"PostgreSQL {found} is too old: StreamLake needs {VERSION_MIN} or newer, upgrade the server")


def _sqlstate(error: BaseException | None) -> str | None:
    return getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None

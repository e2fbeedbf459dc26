"""The metadata store: SQL on one thread, group commit, three outcomes.

Every write is a function of a connection. All writes that wait while the thread is busy run in one transaction, each in
its own SAVEPOINT, so that one that fails does not undo the others; they are answered after COMMIT has returned. Before
COMMIT the fences of the writes are checked (fences.py); writes whose fence has fallen are left out, and the others run
again without them. Reads run between groups and see a snapshot of committed data. The same code serves SQLite (one
server process, which locks the file while it is open) and PostgreSQL (postgres.py), and runs inline in simulation.

An operation either happened, or raises an error that says that nothing happened, or raises OutcomeUnknown. Only
operations that the database undid because of a conflict with another transaction (a deadlock) are retried.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine, Transaction, create_engine, event, extract, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    NoSuchModuleError,
    SQLAlchemyError,
)
from sqlalchemy.pool import NullPool

from streamlake.cluster.store import migrations, postgres
from streamlake.cluster.store.fences import Fallen, Fence, fallen
from streamlake.core.clock import Clock
from streamlake.core.errors import (
    Closed,
    Conflict,
    Corrupt,
    Full,
    Invalid,
    OutcomeUnknown,
    StreamLakeError,
    Unavailable,
)
from streamlake.core.tasks import Executor
from streamlake.telemetry.metric import Metric, counter

T = TypeVar("T")

QUEUE_OPERATIONS_MAX = 10_000
GROUP_OPERATIONS_MAX = 256  # bounds how long the first of a group waits for the last
LOCK_TIMEOUT_MS = 1_000  # how long to wait for a previous process that is ending to release the file
ANSWER_TIMEOUT_S = (
    20.0  # the connection to a server that is silent for longer is cut; its limits for statements are lower
)
OPEN_TIMEOUT_S = 120.0  # the same during migrations, which may have to wait for those of another broker
READ_ONLY = "the metadata store is read-only: give the URL of the primary, not of a standby"
TRIES_MAX = 5  # of an operation that conflicts with another one
REVISED = "revised"  # in Connection.info: the revision that a transaction has made (revision.py)

Outcome = tuple[Any, BaseException | None]


class Write(NamedTuple):
    run: Callable[[Connection], Any]
    fences: tuple[Fence, ...] = ()


@dataclass(slots=True)
class _Operation:
    work: Write
    answer: "asyncio.Future[Any]"

    def deliver(self, outcome: Outcome) -> None:
        if self.answer.done():
            return  # the caller was cancelled; a commit remains a commit
        value, error = outcome
        if error is None:
            self.answer.set_result(value)
        else:
            self.answer.set_exception(error)


class Database:
    """Opened by `Database.open`. `executor` must have exactly one thread (or run inline)."""

    def __init__(
        self,
        engine: Engine,
        executor: Executor,
        clock: Clock,
        line: postgres.Line | None = None,
        answer_timeout_s: float | None = None,
    ) -> None:
        """`line`: for an engine on a network, to cut the connection to a server that does not answer."""
        self.commits = 0
        self.writes = 0
        self.reads = 0
        self.retries = 0
        self.failed_groups = 0
        self.cuts = 0
        self.listeners: list[Callable[[int], None]] = []  # called on the loop with each revision that we committed
        self._engine = engine
        self._executor = executor
        self._clock = clock
        self._line = line
        self._answer_timeout_s = answer_timeout_s or ANSWER_TIMEOUT_S
        self._beside: list[Database] = []
        self._connection: Connection | None = None  # touched on the executor's thread only
        self._writes: deque[_Operation] = deque()
        self._reads: deque[_Operation] = deque()
        self._drain: asyncio.Task[None] | None = None
        self._revised = self._told = -1  # the revision that we committed last, and that the listeners got last
        self._closed = False

    def metrics(self) -> Iterable[Metric]:
        """Of all connections that were made beside this one, too."""
        each = [self, *self._beside]
        return (
            counter("streamlake_metadata_commits", "Transactions committed to the metadata store.",
                lambda: sum(database.commits for database in each)),
            counter("streamlake_metadata_writes",
                "Writes committed to the metadata store; concurrent writes share a transaction.",
                lambda: sum(database.writes for database in each)),
            counter("streamlake_metadata_commits_failed", "Transactions of the metadata store that failed.",
                lambda: sum(database.failed_groups for database in each)),
        )  # fmt: skip

    @classmethod
    async def open(cls, url: str, executor: Executor, clock: Clock) -> "Database":
        """Connect and migrate the tables. `url` is SQLAlchemy's: `sqlite:////dir/metadata.db`,
        `sqlite://` (in memory), `postgresql://…` or `postgresql+psycopg://…`.

        Invalid: unusable URL, or a newer StreamLake wrote the store. Unavailable: another server process holds
        the file, or the database cannot be reached. Corrupt: the file is no database.
        """
        line = postgres.Line() if url.startswith(postgres.SCHEME) else None
        database = cls(_engine(url, line), executor, clock, line)
        try:
            await database._on_thread(OPEN_TIMEOUT_S, database._upgrade)
        except BaseException:
            await executor.run(database._discard)
            raise
        return database

    @property
    def is_ours_alone(self) -> bool:
        """Whether no other process can be connected: SQLite's file is locked while it is open."""
        return self._line is None

    def beside(self, executor: Executor, answer_timeout_s: float | None = None) -> "Database":
        """Another connection to the same store, with a thread and a queue of its own: what goes through it waits for
        none of our operations. Closed with this one. SQLite has one connection: it is this one."""
        if self._line is None:
            return self
        line = postgres.Line()
        engine = postgres.engine(self._engine.url, line)
        self._beside.append(Database(engine, executor, self._clock, line, answer_timeout_s))
        return self._beside[-1]

    def write(self, fn: Callable[[Connection], T], *fences: Fence) -> "asyncio.Future[T]":
        """Run `fn` in the next group; the future has its result once the group is committed. An exception of `fn`
        undoes `fn` alone. `fn` may run more than once; only its last run counts.

        Fenced, whatever else `fn` raises, if one of the `fences` does not stand at the end of the group: a process that
        was taken over finds what its successor has changed, and must not mistake it for damage. Unavailable, Full:
        nothing was done. OutcomeUnknown: the answer to the commit was lost. Conflict: a constraint was violated.
        Invalid: the database cannot store a value. Cancelling the future does not undo the write once its group has
        started.
        """
        return self._submit(self._writes, Write(fn, fences))

    def read(self, fn: Callable[[Connection], T]) -> "asyncio.Future[T]":
        """Run `fn` on committed data; its changes, if any, are rolled back."""
        return self._submit(self._reads, Write(fn))

    def now_ms(self, connection: Connection) -> int:
        """The wall clock that all brokers of this store share: that of the PostgreSQL server, or our own."""
        if connection.dialect.name == "sqlite":
            return self._clock.now_ms()
        return int(connection.execute(select(extract("epoch", func.clock_timestamp()))).scalar_one() * 1000)

    async def close(self) -> None:
        """Finish the queued operations, then close the connection. The caller still owns the executor."""
        while self._beside:
            await self._beside.pop().close()
        self._closed = True
        if self._drain is not None:
            await self._drain
        await self._executor.run(self._discard)

    def _submit(self, queue: deque[_Operation], work: Write) -> "asyncio.Future[Any]":
        if self._closed:
            raise Closed("the metadata store is closed")
        if len(queue) >= QUEUE_OPERATIONS_MAX:
            raise Full(f"{QUEUE_OPERATIONS_MAX} metadata operations are waiting already: try again later")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        queue.append(_Operation(work, answer))
        if self._drain is None:
            self._drain = loop.create_task(self._drain_queues(), name="metadata")
        return answer

    async def _drain_queues(self) -> None:
        """One call on the thread per group: first the queued writes, then the queued reads."""
        batch: list[_Operation] = []
        try:
            while self._writes or self._reads:
                writes, reads = _take(self._writes), _take(self._reads)
                batch = writes + reads
                outcomes = await self._on_thread(
                    self._answer_timeout_s, self._run, [w.work for w in writes], [r.work.run for r in reads]
                )
                for operation, outcome in zip(batch, outcomes, strict=True):
                    operation.deliver(outcome)
                batch = []
                if self._revised != self._told:
                    self._told = self._revised
                    # After the callbacks of the answers: what follows its own commits has done so.
                    asyncio.get_running_loop().call_soon(self._tell, self._told)
        finally:
            self._drain = None
            self._abandon(batch)

    def _tell(self, revision: int) -> None:
        for listener in self.listeners:
            listener(revision)

    async def _on_thread(self, timeout_s: float, fn: Callable[..., T], *args: Any) -> T:
        """After `timeout_s` the connection that `fn` uses is cut, so that `fn` ends with an error."""
        if self._line is None:
            return await self._executor.run(fn, *args)
        patience = asyncio.get_running_loop().call_later(timeout_s, self._cut)
        try:
            return await self._executor.run(fn, *args)
        finally:
            patience.cancel()

    def _cut(self) -> None:
        assert self._line is not None
        self.cuts += 1
        self._line.cut()

    def _abandon(self, started: list[_Operation]) -> None:
        """The executor itself failed: no caller may wait for ever. Normally there is none to abandon."""
        for operation in started:
            operation.deliver((None, OutcomeUnknown("the metadata thread stopped before it answered")))
        for queue in (self._writes, self._reads):
            while queue:
                queue.popleft().deliver((None, Closed("the metadata thread has stopped")))

    # All below runs on the thread of the executor.

    def _run(self, writes: Sequence[Write], reads: Sequence[Callable[[Connection], Any]]) -> list[Outcome]:
        outcomes = self._write_all(writes)
        outcomes.extend(self._read_one(read) for read in reads)
        return outcomes

    def _write_all(self, writes: Sequence[Write]) -> list[Outcome]:
        """All writes in their order, in one transaction. If one of them loses against a transaction of another broker,
        the writes before it are committed, which releases our locks, and the others start again with it."""
        outcomes: list[Outcome] = []
        tries = 1
        while len(outcomes) < len(writes):
            done = self._write_group(writes[len(outcomes) :], last_try=tries >= TRIES_MAX)
            tries = 1 if done else tries + 1
            outcomes += done
        return outcomes

    def _write_group(self, writes: Sequence[Write], last_try: bool) -> list[Outcome]:
        """The outcomes of the writes before the first one to retry; with `last_try`, of all."""
        outcomes: list[Outcome] = []
        try:
            connection = self._connect()
            outcomes, transaction = self._run_fenced(connection, writes, last_try)
        except SQLAlchemyError as error:
            # COMMIT was never sent, so the database rolls all of it back, at the latest when the connection closes.
            self._give_up()
            if postgres.must_retry(error) and not last_try:
                self.retries += 1
                return []
            return [(None, _nothing_done(error))] * len(writes)
        try:
            # Answers leave this thread only after COMMIT has returned, that is, after the fsync of SQLite
            # (synchronous=FULL) or of the server: a machine that dies before may lose the group, but no caller has been
            # told that it happened. The fences that were checked are locked until COMMIT ends: nobody fences us before.
            transaction.commit()
        except SQLAlchemyError as error:
            self._give_up()
            return [(None, _commit_failed(error))] * len(outcomes or writes)
        self.commits += 1
        self.writes += len(outcomes)
        self._revised = connection.info.pop(REVISED, self._revised)
        return outcomes

    def _run_fenced(
        self, connection: Connection, writes: Sequence[Write], last_try: bool
    ) -> tuple[list[Outcome], Transaction]:
        """The outcomes of the writes before the first one to retry, and the transaction that holds their effects."""
        fenced: dict[Fence, Fallen] = {}
        while True:
            transaction = connection.begin()
            outcomes: list[Outcome] = []
            for write in writes:
                error = _fenced_by(write, fenced)
                outcome = (None, error) if error else _in_savepoint(connection, write.run)
                if postgres.must_retry(outcome[1]) and not last_try:
                    self.retries += 1
                    break
                outcomes.append(outcome)
            checked = {fence for write in writes[: len(outcomes)] for fence in write.fences}
            # Last of all, for all of them: before this, another process may take a broker over without waiting for us.
            found = fallen(connection, checked - fenced.keys())
            if not found:
                return [(v, _nothing_done(e) if isinstance(e, DBAPIError) else e) for v, e in outcomes], transaction
            # The effects of a fenced write are undone, and those of the writes after it, which may have seen them. An
            # epoch never returns, so each round ends with fewer fences than it began with.
            fenced |= found
            transaction.rollback()

    def _read_one(self, read: Callable[[Connection], Any]) -> Outcome:
        self.reads += 1
        try:
            connection = self._connect()
            with connection.begin() as transaction:
                if connection.dialect.name == "postgresql":
                    postgres.begin_snapshot(connection)
                value = read(connection)
                transaction.rollback()
        except SQLAlchemyError as error:
            self._discard()
            return None, _nothing_done(error)
        except Exception as error:
            return None, error
        return value, None

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _give_up(self) -> None:
        """A connection whose group failed is not used again: a new one sees the true state of the database."""
        self.failed_groups += 1
        self._discard()

    def _discard(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except SQLAlchemyError:
                connection.invalidate()
        if self._line is not None:
            self._line.close()

    def _upgrade(self) -> None:
        try:
            if self._line is not None:
                postgres.require_version(self._connect())
            with self._connect().begin():
                migrations.upgrade(self._connect())
        except DBAPIError as error:
            raise _cannot_open(self._engine, error) from error


def _take(queue: deque[_Operation]) -> list[_Operation]:
    """The next group, without operations that were cancelled before they started."""
    group = [queue.popleft() for _ in range(min(len(queue), GROUP_OPERATIONS_MAX))]
    return [operation for operation in group if not operation.answer.cancelled()]


def _fenced_by(write: Write, fenced: Mapping[Fence, Fallen]) -> Fallen | None:
    return next((fenced[fence] for fence in write.fences if fence in fenced), None)


def _in_savepoint(connection: Connection, write: Callable[[Connection], Any]) -> Outcome:
    """One operation of a group. Raises only if the whole transaction is lost."""
    savepoint = connection.begin_nested()
    try:
        value = write(connection)
    except Exception as error:
        try:
            savepoint.rollback()
        except SQLAlchemyError as lost:  # the database rolled the whole transaction back (disk full, connection lost)
            raise (error if isinstance(error, SQLAlchemyError) else lost) from error
        if postgres.is_read_only(error):  # another connection may lead to the new primary
            raise
        if connection.invalidated:  # SQLAlchemy knows that the connection was lost, and did not roll back
            raise DisconnectionError(f"the connection was lost: {error}") from error
        return None, error
    savepoint.commit()
    return value, None


def _engine(url: str, line: postgres.Line | None) -> Engine:
    try:
        parsed = make_url(url)
        if line is not None:
            return postgres.engine(parsed, line)
        engine = create_engine(parsed, poolclass=NullPool)
    except (ArgumentError, NoSuchModuleError, ValueError):  # ValueError: a port that is not a number
        # Without the URL, which may hold a password.
        raise Invalid(
            "what is configured is not a database URL: use sqlite:////path/metadata.db or postgresql://user@host/name"
        ) from None
    except ModuleNotFoundError as error:
        raise Invalid(f"the driver of {parsed.drivername} is not installed: pip install {error.name}") from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_immediate)
    return engine


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin or end transactions around our savepoints
    connection.execute(f"PRAGMA busy_timeout={LOCK_TIMEOUT_MS}")
    # The lock lasts as long as the connection: a second server process cannot even read. No -shm file is needed.
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")  # NORMAL would lose acknowledged commits at a power cut
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _sqlite_code(error: BaseException) -> int:
    """SQLite's primary result code; 0 for other databases."""
    code: int = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0)
    return code & 0xFF


def _nothing_done(error: SQLAlchemyError) -> StreamLakeError:
    if isinstance(error, IntegrityError):
        return Conflict(f"the metadata changed in between: {error.orig}")
    if isinstance(error, DataError):
        return Invalid(f"the metadata store cannot hold a value that was given: {error.orig}")
    if _sqlite_code(error) == sqlite3.SQLITE_FULL or postgres.is_full(error):
        return Full("the disk of the metadata store is full: free some space; nothing was changed")
    if postgres.is_read_only(error):
        return Unavailable(f"{READ_ONLY}; nothing was changed")
    return Unavailable(f"the metadata store failed, nothing was changed: {_reason(error)}")


def _commit_failed(error: SQLAlchemyError) -> StreamLakeError:
    if _sqlite_code(error) == sqlite3.SQLITE_FULL:
        return _nothing_done(error)  # the frame with the commit mark was not written completely
    return OutcomeUnknown(f"the metadata store failed while it committed: {_reason(error)}")


def _cannot_open(engine: Engine, error: DBAPIError) -> StreamLakeError:
    where = engine.url.render_as_string(hide_password=True)
    code = _sqlite_code(error)
    if code == sqlite3.SQLITE_BUSY:
        return Unavailable(f"{engine.url.database} is in use by another server process: stop that one first")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        why = _reason(error)
        return Corrupt(f"{engine.url.database} is not a usable metadata database ({why}): restore it from a backup")
    if code == sqlite3.SQLITE_FULL or postgres.is_full(error):
        return _nothing_done(error)
    if postgres.is_read_only(error):
        return Unavailable(f"{where}: {READ_ONLY}")
    return Unavailable(f"cannot open the metadata store {where}: {_reason(error)}")


def _reason(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error)

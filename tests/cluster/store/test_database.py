import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from contracts.metadata_contract import MetadataContract, put, rows
from sqlalchemy import text
from support.wait import DEADLINE_S

from streamlake.cluster.store.database import Database
from streamlake.core.clock import SystemClock
from streamlake.core.errors import Closed, Conflict, Corrupt, Full, Invalid, OutcomeUnknown, Unavailable
from streamlake.core.tasks import InlineExecutor, ThreadExecutor


class TestStores(MetadataContract):
    """SQLite inline, in a file and in memory; PostgreSQL on a thread."""


class TestSqliteOnAThread(MetadataContract):
    """As in the server."""

    @pytest.fixture
    async def database(self, tmp_path):
        executor = ThreadExecutor("metadata")
        database = await Database.open(f"sqlite:///{tmp_path}/metadata.db", executor, SystemClock())
        yield database
        await database.close()
        executor.close()


async def open_file(path: Path) -> Database:
    return await Database.open(f"sqlite:///{path}/metadata.db", InlineExecutor(), SystemClock())


async def test_what_was_written_is_there_after_a_restart(tmp_path) -> None:
    database = await open_file(tmp_path)
    await database.write(put("a", 1))
    await database.close()
    database = await open_file(tmp_path)
    assert await database.read(rows) == {"a": 1}
    await database.close()


async def test_every_commit_is_synced(tmp_path) -> None:
    """NORMAL would lose acknowledged commits at a power cut; one cannot see that without cutting it."""
    database = await open_file(tmp_path)
    pragma = {
        name: await database.read(lambda c, name=name: c.execute(text(f"PRAGMA {name}")).scalar())
        for name in ("synchronous", "journal_mode", "foreign_keys", "locking_mode")
    }
    assert pragma == {"synchronous": 2, "journal_mode": "wal", "foreign_keys": 1, "locking_mode": "exclusive"}
    await database.close()


async def test_answers_wait_for_the_commit(tmp_path) -> None:
    database = await open_file(tmp_path)

    def uncommitted() -> bool:
        return database._connection.connection.dbapi_connection.in_transaction

    seen = []
    futures = [database.write(lambda c: uncommitted()), database.write(put("a", 1))]
    for future in futures:
        future.add_done_callback(lambda _: seen.append(uncommitted()))
    assert await futures[0] is True  # the function itself runs inside the transaction
    await futures[1]
    await asyncio.sleep(0)
    assert seen == [False, False]
    await database.close()


async def test_a_second_process_on_the_same_file_is_refused(tmp_path) -> None:
    database = await open_file(tmp_path)
    script = f"""
import asyncio
from streamlake.cluster.store.database import Database
from streamlake.core.clock import SystemClock
from streamlake.core.tasks import InlineExecutor
asyncio.run(Database.open("sqlite:///{tmp_path}/metadata.db", InlineExecutor(), SystemClock()))
"""
    second = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert second.returncode == 1
    assert f"Unavailable: {tmp_path}/metadata.db is in use by another server process" in second.stderr
    await database.write(put("a", 1))
    await database.close()


WRITER = """
import asyncio, sys
from sqlalchemy import insert
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.schema import id_block
from streamlake.core.clock import SystemClock
from streamlake.core.tasks import ThreadExecutor

async def main():
    database = await Database.open(sys.argv[1], ThreadExecutor("metadata"), SystemClock())
    async def write(i):
        await database.write(lambda c: c.execute(insert(id_block).values(kind=str(i), next_id=i)))
        print(i, flush=True)
    at = 0
    while True:
        await asyncio.gather(*[write(at + i) for i in range(7)])
        at += 7
asyncio.run(main())
"""


async def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/metadata.db"
    acknowledged: set[str] = set()
    for life in range(3):
        prefix = WRITER.replace("at = 0", f"at = {life * 1_000_000}")
        writer = subprocess.Popen([sys.executable, "-c", prefix, url], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(40 + 13 * life):
            acknowledged.add(writer.stdout.readline().strip())
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        acknowledged.update(line.strip() for line in writer.stdout.readlines() if line.endswith("\n"))
        writer.stdout.close()
        database = await open_file(tmp_path)
        stored = await database.read(rows)
        await database.close()
        assert acknowledged <= stored.keys()
    assert len(acknowledged) > 100


async def test_a_full_disk_is_full_and_heals(tmp_path) -> None:
    database = await open_file(tmp_path)
    await database.write(put("before", 1))
    limit = "PRAGMA max_page_count={}"
    pages = await database.read(lambda c: c.execute(text("PRAGMA page_count")).scalar())
    await database.read(lambda c: c.execute(text(limit.format(pages))).scalar())
    outcomes = await asyncio.gather(
        *[database.write(put("x" * 20_000 + str(i), 1)) for i in range(3)], return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} == {Full}
    assert await database.read(rows) == {"before": 1}
    await database.read(lambda c: c.execute(text(limit.format(1_000_000))).scalar())
    assert await database.write(put("x" * 20_000, 1)) == 1
    await database.close()


def fail_commits(monkeypatch, errors: list[BaseException]) -> None:
    """The next commits of SQLite fail with these errors, before anything reaches the file."""
    from sqlalchemy.engine.default import DefaultDialect

    real = DefaultDialect.do_commit

    def do_commit(self, connection) -> None:
        if errors:
            raise errors.pop(0)
        real(self, connection)

    monkeypatch.setattr(DefaultDialect, "do_commit", do_commit)


async def test_a_commit_that_fails_is_unknown_for_the_whole_group(tmp_path, monkeypatch) -> None:
    database = await open_file(tmp_path)
    fail_commits(monkeypatch, [sqlite3.OperationalError("disk I/O error")])
    outcomes = await asyncio.gather(database.write(put("a", 1)), database.write(put("b", 1)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown, OutcomeUnknown]
    assert database.failed_groups == 1
    # A new connection finds out what is true, and work goes on.
    assert await database.read(rows) == {}
    assert await database.write(put("a", 2)) == 1
    await database.close()


async def test_a_commit_that_finds_the_disk_full_did_nothing(tmp_path, monkeypatch) -> None:
    database = await open_file(tmp_path)
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    fail_commits(monkeypatch, [error])
    with pytest.raises(Full, match="free some space"):
        await database.write(put("a", 1))
    assert await database.read(rows) == {}
    await database.close()


async def test_a_transaction_that_the_database_dropped_fails_the_group_and_nothing_is_done(tmp_path) -> None:
    """SQLite may roll all of it back on an I/O error: then the earlier operations of the group are gone too."""

    def lost(connection) -> None:
        connection.connection.dbapi_connection.execute("ROLLBACK")
        connection.execute(text("SELECT nonsense"))

    database = await open_file(tmp_path)
    outcomes = await asyncio.gather(
        database.write(put("a", 1)), database.write(lost), database.write(put("b", 1)), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert await database.read(rows) == {}
    assert await database.write(put("a", 1)) == 1
    await database.close()


async def test_a_dead_executor_leaves_nobody_waiting(tmp_path) -> None:
    executor = ThreadExecutor("metadata")
    database = await Database.open(f"sqlite:///{tmp_path}/metadata.db", executor, SystemClock())
    executor.close()
    first = database.write(put("a", 1))
    outcomes = await asyncio.gather(first, database.read(rows), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown, OutcomeUnknown]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "is not a database URL"),
        ("nosuchdb:///x", "is not a database URL"),
        ("postgresql+psycopg2://localhost/x", "is not a driver that StreamLake uses"),
        ("mysql+pymysql://localhost/x", "pip install pymysql"),
    ],
)
async def test_unusable_urls(url: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        await Database.open(url, InlineExecutor(), SystemClock())


@pytest.mark.parametrize(
    "url", ["postgresql//u:secret@h/db", "nosuchdb://u:secret@h/db", "postgresql://u:secret@h:x/d"]
)
async def test_an_error_does_not_show_the_password_of_a_wrong_url(url: str):
    with pytest.raises(Invalid, match="is not a database URL") as raised:
        await Database.open(url, InlineExecutor(), SystemClock())
    assert "secret" not in str(raised.value)


async def test_a_file_that_is_no_database(tmp_path) -> None:
    (tmp_path / "metadata.db").write_bytes(b"hello" * 1000)
    with pytest.raises(Corrupt, match="not a usable metadata database"):
        await open_file(tmp_path)


async def test_a_directory_that_does_not_exist(tmp_path) -> None:
    with pytest.raises(Unavailable, match="cannot open"):
        await open_file(tmp_path / "none")


async def test_constraints_are_conflicts(database) -> None:
    await database.write(put("a", 1))
    with pytest.raises(Conflict):
        await database.write(put("a", 2))


async def test_closed(database) -> None:
    await database.close()
    with pytest.raises(Closed):
        database.read(rows)


async def test_sqlite_has_one_connection(tmp_path) -> None:
    """Its file is locked while it is open: a second connection would be refused, and no other process has one."""
    database = await open_file(tmp_path)
    assert database.is_ours_alone
    assert database.beside(InlineExecutor()) is database
    await database.close()

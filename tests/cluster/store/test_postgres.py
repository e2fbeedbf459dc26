"""PostgreSQL under the metadata store: brokers beside each other, and servers that die, hang or give way."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from contracts.metadata_contract import put, rows
from contracts.stream_metadata_contract import opened
from sqlalchemy import event, func, insert, select, text
from support.group_rows import GroupRows
from support.locks import Held, until, waiting_for_a_lock
from support.members import controller, next_process, sign_of
from support.wait import DEADLINE_S

from streamlake.cluster import topics
from streamlake.cluster.store import database as database_module
from streamlake.cluster.store import postgres as module
from streamlake.cluster.store import schema
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.groups import OffsetRow
from streamlake.cluster.store.membership import (
    BEAT_ANSWER_TIMEOUT_S,
    BEAT_INTERVAL_S,
    BEAT_RETRY_S,
    LEASE_S,
    Membership,
)
from streamlake.cluster.store.schema import id_block, take_ids
from streamlake.cluster.store.schemas import ReferenceRow, SchemaRow, SchemaStore
from streamlake.cluster.store.stream_metadata import SqlStreamMetadata, create_streams
from streamlake.cluster.store.wals import Wals
from streamlake.cluster.topics import Topics
from streamlake.cluster.watch import Sign
from streamlake.core.clock import SystemClock
from streamlake.core.errors import Closed, Conflict, Exists, Fenced, Full, Invalid, OutcomeUnknown, Unavailable
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor, ThreadExecutor
from streamlake.s3stream.metadata import StreamRange


async def member(database: Database, clock, node: int) -> tuple[Membership, BrokerIdentity]:
    membership = await next_process(database, clock, Ids(node), node)
    return membership, membership.identity


async def topics_of(database: Database, clock, node: int) -> Topics:
    _, identity = await member(database, clock, node)
    made = Topics(database, identity, clock, Ids(100 + node))
    await made.refresh()
    return made


# -- several brokers ---------------------------------------------------------------------------------------------------


async def test_brokers_register_at_once(postgres, clock) -> None:
    databases = [await postgres.open() for _ in range(4)]

    async def one_after_the_other(database: Database) -> tuple[Membership, BrokerIdentity]:
        """Whoever was the node a moment ago: of those who saw the same process, one wins."""
        while True:
            try:
                return await member(database, clock, 0)
            except Conflict:
                continue

    same_node = await asyncio.gather(*[one_after_the_other(database) for database in databases])
    assert sorted(identity.epoch for _, identity in same_node) == [1, 2, 3, 4]
    assert len({identity.cluster_id for _, identity in same_node}) == 1
    others = await asyncio.gather(*[member(database, clock, node) for node, database in enumerate(databases, 1)])
    assert {identity.epoch for _, identity in others} == {1}
    alive = next(membership for membership, identity in same_node if identity.epoch == 4)
    assert [broker.node for broker in await alive.brokers()] == [0, 1, 2, 3, 4]
    for membership, identity in same_node:
        if identity.epoch < 4:
            with pytest.raises(Fenced):
                await membership.beat()


async def test_a_zombie_on_another_connection_commits_nothing(postgres, clock) -> None:
    a, b = await postgres.open(), await postgres.open()
    _, old = await member(a, clock, 0)
    zombie = SqlStreamMetadata(a, old, await Wals(a, old).adopt("file:///wal", continues=True))
    (s,) = await a.write(lambda c: create_streams(c, 1))
    (state,) = await opened(zombie, [s], [0])
    object_id = await zombie.prepare_object(1_000)
    _, new = await member(b, clock, 0)
    owner = SqlStreamMetadata(b, new, await Wals(b, new).adopt("file:///wal", continues=True))
    with pytest.raises(Fenced):
        await zombie.commit_object(object_id, 1, [StreamRange(s, state.epoch, 0, 10)], [], 9)
    assert (await owner.objects(), await owner.wal_trim()) == ([], 0)


async def test_two_brokers_commit_to_their_own_streams_side_by_side(postgres, clock) -> None:
    databases = [await postgres.open() for _ in range(2)]
    ids = list(await databases[0].write(lambda c: create_streams(c, 4)))

    async def work(node: int, streams: list[int]) -> None:
        database = databases[node]
        _, identity = await member(database, clock, node)
        wal = await Wals(database, identity).adopt("file:///wal", continues=True)
        metadata = SqlStreamMetadata(database, identity, wal)
        states = await opened(metadata, streams, [0] * len(streams))
        for n in range(15):
            object_id = await metadata.prepare_object(1_000)
            ranges = [StreamRange(s.stream_id, s.epoch, n, n + 1) for s in states]
            await metadata.commit_object(object_id, 1, ranges, [], n)

    await asyncio.gather(work(0, ids[:2]), work(1, ids[2:]))
    _, identity = await member(databases[0], clock, 9)
    metadata = SqlStreamMetadata(databases[0], identity, None)
    assert {state.end_offset for state in await metadata.stream_states()} == {15}
    objects = await metadata.objects()
    assert len({o.object_id for o in objects}) == len(objects) == 30


async def test_names_are_taken_once_whoever_asks(postgres, clock) -> None:
    """Equal names, and names that only together are forbidden, from several brokers at once."""
    brokers = [await topics_of(await postgres.open(), clock, node) for node in range(4)]
    for n in range(5):
        names = [f"same.{n}", f"same.{n}", f"same_{n}", f"same.{n}"]
        outcomes = await asyncio.gather(
            *[t.create(name, 2, {}) for t, name in zip(brokers, names, strict=True)], return_exceptions=True
        )
        made = [o for o in outcomes if not isinstance(o, Exception)]
        assert len(made) == 1
        assert {type(o) for o in outcomes if isinstance(o, Exception)} <= {Exists, Invalid}
    for broker in brokers:
        await broker.refresh()
    assert len({tuple(t.id for t in broker.all()) for broker in brokers}) == 1
    assert len(brokers[0].all()) == 5


async def test_equal_schemas_from_two_brokers(postgres, clock) -> None:
    stores = [
        SchemaStore(d, (await member(d, clock, n))[1])
        for n, d in enumerate([await postgres.open(), await postgres.open()])
    ]
    for n in range(5):
        outcomes = await asyncio.gather(
            *[s.register(f"{at}-{n}", SchemaRow(f'"text {n}"'), 0) for at, s in enumerate(stores)],
            return_exceptions=True,
        )
        assert {type(o).__name__ for o in outcomes} <= {"VersionRow", "Conflict"}
        assert any(not isinstance(o, Conflict) for o in outcomes)


async def test_a_version_is_not_deleted_while_a_schema_comes_to_refer_to_it(postgres, clock) -> None:
    """One of both goes first, and the other sees it: the lock of the version, and the look after it."""
    one, other = [
        SchemaStore(d, (await member(d, clock, n))[1])
        for n, d in enumerate([await postgres.open(), await postgres.open()])
    ]
    for n in range(8):
        version = await one.register(f"used-{n}", SchemaRow(f'"text {n}"'), 0)
        refers = SchemaRow("x", "PROTOBUF", (ReferenceRow("a", f"used-{n}", 1, version.schema_id),), b"", f"x {n}")
        outcomes = await asyncio.gather(
            other.register(f"using-{n}", refers, 0), one.soft_delete(f"used-{n}", [1]), return_exceptions=True
        )
        assert {type(outcomes[0]).__name__, type(outcomes[1]).__name__} in (
            {"VersionRow", "Invalid"},
            {"Conflict", "NoneType"},
        )


async def test_offsets_of_a_topic_that_is_being_deleted_are_dropped(postgres, clock, monkeypatch) -> None:
    """The commit finds the topic while its deletion is not committed yet: it waits, and then drops the offset."""
    a, b = await postgres.open(), await postgres.open()
    deleter = await topics_of(a, clock, 0)
    await deleter.create("orders", 1, {})
    _, identity = await member(b, clock, 1)
    groups, held = await GroupRows.of(b, identity), Held()
    real = topics.next_revision
    monkeypatch.setattr(topics, "next_revision", lambda *changed: (held(), real(*changed))[1])
    deleting = asyncio.ensure_future(deleter.delete("orders"))
    await asyncio.to_thread(held.inside.wait)
    committing = asyncio.ensure_future(groups.commit("g", [OffsetRow("orders", 0, 5, -1, "", 1)]))
    watcher = await postgres.open()
    await until(lambda: waiting_for_a_lock(watcher))
    held.let_go()
    await asyncio.gather(deleting, committing)
    assert await groups.fetch_offsets("g") == []


# -- revisions (hazard C20) --------------------------------------------------------------------------------------------


async def revisions_against_changes(postgres, clock, monkeypatch) -> list[tuple[int, int]]:
    """Two brokers each set a config, of different topics; the first stops just before its commit. What a watcher sees
    meanwhile and at the end: (revision, configs that are set)."""
    first, second = [await topics_of(await postgres.open(), clock, node) for node in range(2)]
    await first.create("a", 1, {})
    await first.create("b", 1, {})
    await second.refresh()
    watcher, held, real = await postgres.open(), Held(), first._database.write

    def slow(fn, *fences):
        def run(connection):
            value = fn(connection)
            held()
            return value

        return real(run, *fences)

    monkeypatch.setattr(first._database, "write", slow)
    monkeypatch.setattr(topics.Topics, "refresh", lambda self: asyncio.sleep(0))
    altering = asyncio.ensure_future(first.alter_configs("a", {"retention.ms": "1"}))
    await asyncio.to_thread(held.inside.wait)
    other = asyncio.ensure_future(second.alter_configs("b", {"retention.ms": "1"}))

    async def blocked_or_done() -> bool:
        return other.done() or await waiting_for_a_lock(watcher)

    async def look() -> tuple[int, int]:
        now = await watcher.read(lambda connection: topics.load_changed(connection, -1))
        return now.revision, sum(len(t.configs) for t in now.topics.values())

    await until(blocked_or_done)
    meanwhile = await look()
    held.let_go()
    await asyncio.gather(altering, other)
    return [meanwhile, await look()]


async def test_a_revision_shows_all_changes_up_to_it(postgres, clock, monkeypatch) -> None:
    assert await revisions_against_changes(postgres, clock, monkeypatch) == [(2, 0), (4, 2)]


async def test_revisions_taken_first_from_what_is_not_locked_are_noticed(postgres, clock, monkeypatch) -> None:
    """What the test above is worth: with numbers from a sequence, the watcher is at 4 and has missed 3."""
    database = await postgres.open()
    await database.write(lambda c: c.execute(text("DROP SEQUENCE IF EXISTS early")) and None)
    await database.write(lambda c: c.execute(text("CREATE SEQUENCE early")) and None)
    taken: dict[int, int] = {}

    def take_first(connection) -> None:
        taken[id(connection)] = connection.execute(text("SELECT nextval('early')")).scalar_one()

    def store(connection, *_) -> int:
        row = {"kind": f"revision {taken[id(connection)]}", "next_id": taken[id(connection)]}
        connection.execute(insert(id_block).values(row))
        return row["next_id"]

    latest = select(func.coalesce(func.max(id_block.c.next_id), 0)).where(id_block.c.kind.like("revision %"))
    real = topics.load_changed
    monkeypatch.setattr(topics, "lock_revision", take_first)
    monkeypatch.setattr(topics, "next_revision", store)

    def load(connection, seen):
        return replace(real(connection, seen), revision=connection.execute(latest).scalar_one())

    monkeypatch.setattr(topics, "load_changed", load)
    assert await revisions_against_changes(postgres, clock, monkeypatch) == [(4, 1), (4, 2)]


async def test_a_read_sees_one_moment(postgres, clock) -> None:
    """A topic is never seen without its partitions, however often it is created while somebody reads."""
    creator, reader = await topics_of(await postgres.open(), clock, 0), await postgres.open()
    between = Held()

    def read(connection) -> tuple[int, int]:
        before = connection.execute(select(schema.cluster.c.revision)).scalar_one()
        between()
        return before, len(connection.execute(select(schema.topic.c.id)).all())

    reading = reader.read(read)
    await asyncio.to_thread(between.inside.wait)
    await creator.create("orders", 1, {})
    between.let_go()
    assert await reading == (0, 0)


# -- deadlocks ---------------------------------------------------------------------------------------------------------


async def test_of_two_that_are_in_each_others_way_both_succeed(postgres) -> None:
    """The database undoes one; it is tried again once the locks of its own group are gone. Order is kept."""
    databases = [await postgres.open() for _ in range(2)]
    barrier = threading.Barrier(2)

    async def group(database: Database, first: str, second: str) -> list[int]:
        met: list[int] = []

        def meet_and_take(connection) -> int:
            if not met:  # the second try is alone
                met.append(barrier.wait(DEADLINE_S))
            return take_ids(connection, second, 1)

        return await asyncio.gather(
            database.write(lambda c: take_ids(c, first, 1)),
            database.write(meet_and_take),
            database.write(lambda c: take_ids(c, f"after {second}", 1)),
        )

    outcomes = await asyncio.gather(group(databases[0], "a", "b"), group(databases[1], "b", "a"))
    assert [o[2] for o in outcomes] == [1, 1]
    assert await databases[0].read(rows) == {"a": 3, "b": 3, "after a": 2, "after b": 2}
    assert sum(database.retries for database in databases) >= 1
    assert sum(database.failed_groups for database in databases) == 0


async def test_an_operation_that_never_gets_its_way_is_unavailable(postgres) -> None:
    database = await postgres.open()

    def give_way(connection) -> None:
        connection.execute(text("DO $$ BEGIN RAISE EXCEPTION 'planned' USING ERRCODE = 'deadlock_detected'; END $$"))

    first, failed, last = await asyncio.gather(
        database.write(put("a", 1)), database.write(give_way), database.write(put("b", 1)), return_exceptions=True
    )
    assert (first, last) == (1, 1)
    assert isinstance(failed, Unavailable)
    assert database.retries == database_module.TRIES_MAX
    assert await database.read(rows) == {"a": 1, "b": 1}


async def test_two_controllers_that_take_each_other_over(postgres, clock) -> None:
    """The first was paused after it had looked, and wakes up when the second has begun its term."""
    for _ in range(5):
        (a, _), (b, _) = [await member(await postgres.open(), clock, node) for node in range(2)]
        signs = [await sign_of(a, node) for node in range(2)]
        old, new = await controller(a), await controller(b)
        outcomes = await asyncio.gather(
            a.take_over(old, 1, signs[1]), b.take_over(new, 0, signs[0]), return_exceptions=True
        )
        assert type(outcomes[0]) in (Conflict, Fenced) and outcomes[1] == signs[0].epoch
        assert a._database.retries == b._database.retries == 0, "they lock in the same order"


# -- connections of their own ------------------------------------------------------------------------------------------


async def test_a_beat_waits_for_nothing_else(postgres, clock) -> None:
    """Neither for the operations before it, nor for a row that another broker has locked."""
    database = await postgres.open()
    executor = ThreadExecutor("beats")
    membership, identity = await member(database, clock, 0)
    membership._beats = database.beside(executor)
    held = Held()
    waiting = [
        database.write(lambda c: held(), identity),
        *[database.write(put(str(n), n), identity) for n in range(256)],
    ]
    await asyncio.to_thread(held.inside.wait)
    await membership.beat()
    assert await sign_of(membership, 0) == Sign(identity.epoch, 1)
    assert not any(write.done() for write in waiting)
    held.let_go()
    await asyncio.gather(*waiting)
    await database.close()  # and the one beside it
    with pytest.raises(Closed):
        await membership.beat()
    executor.close()


async def test_a_connection_for_beats_is_given_up_soon(postgres, clock) -> None:
    """While there is time for another one. A server that hangs is left at the usual limit by the others."""
    database = await postgres.open()
    executor = ThreadExecutor("beats")
    membership, _ = await member(database, clock, 0)
    membership._beats = beats = database.beside(executor, 0.3)
    await membership.beat()
    paused = postgres.server.pause(postgres.name)
    try:
        with pytest.raises(Unavailable):
            await membership.beat()
        assert beats.cuts >= 1
        await membership.beat()
    finally:
        for pid in paused:
            os.kill(pid, signal.SIGCONT)
    await database.close()
    executor.close()


def test_limits_are_below_a_lease() -> None:
    """A broker that freezes in a transaction, then a statement that waits for its lock: nobody loses a lease by it."""
    seconds = {
        name: float(module.SESSION[name].removesuffix("ms").removesuffix("s"))
        for name in module.SESSION
        if name != "synchronous_commit"
    }
    seconds["lock_timeout"] /= 1000
    assert seconds["idle_in_transaction_session_timeout"] + seconds["lock_timeout"] + BEAT_INTERVAL_S < LEASE_S
    assert BEAT_INTERVAL_S + BEAT_ANSWER_TIMEOUT_S + BEAT_RETRY_S < LEASE_S
    assert seconds["statement_timeout"] < LEASE_S


# -- lost connections, hung servers ------------------------------------------------------------------------------------


async def test_a_lost_connection_is_unavailable_and_then_made_anew(postgres) -> None:
    database = await postgres.open()
    await database.write(put("a", 1))
    postgres.server.end_sessions(postgres.name)
    outcomes = await asyncio.gather(*[database.write(put(k, 1)) for k in "bc"], return_exceptions=True)
    assert {type(o) for o in outcomes} == {Unavailable}
    assert await database.write(put("b", 2)) == 1
    postgres.server.end_sessions(postgres.name)
    with pytest.raises(Unavailable):
        await database.read(rows)
    assert await database.read(rows) == {"a": 1, "b": 2}


@pytest.mark.parametrize("last", [False, True])
async def test_a_connection_lost_inside_a_group_undoes_all_of_it(postgres, last: bool) -> None:
    """SQLAlchemy passes over the rollback of a savepoint whose connection is gone: nobody may be told "done"."""
    database = await postgres.open()

    def lost(connection) -> None:
        postgres.server.end_sessions(postgres.name)
        connection.execute(text("SELECT 1"))

    def swallowed(connection) -> None:
        try:
            lost(connection)
        except Exception:
            raise Invalid("something else") from None

    for fault in (lost, swallowed):
        writes = [put("a", 1), fault] if last else [put("a", 1), fault, put("b", 1)]
        outcomes = await asyncio.gather(*[database.write(w) for w in writes], return_exceptions=True)
        assert {type(o) for o in outcomes} == {Unavailable}
    assert await database.read(rows) == {}


async def test_a_commit_whose_answer_is_lost_is_unknown(postgres) -> None:
    database = await postgres.open()

    def lose(connection) -> None:
        postgres.server.end_sessions(postgres.name)

    event.listen(database._engine, "commit", lose)  # called just before COMMIT is sent
    with pytest.raises(OutcomeUnknown):
        await database.write(put("a", 1))
    event.remove(database._engine, "commit", lose)
    assert await database.write(put("b", 1)) == 1


async def test_a_lock_that_is_not_given_is_unavailable(postgres, monkeypatch) -> None:
    monkeypatch.setitem(module.SESSION, "lock_timeout", "50ms")
    a, b = await postgres.open(), await postgres.open()
    await a.write(put("a", 1))
    held = Held()

    def hold(connection) -> None:
        connection.execute(select(id_block).with_for_update())
        held()

    holding = a.write(hold)
    await asyncio.to_thread(held.inside.wait)
    with pytest.raises(Unavailable, match="lock timeout"):
        await b.write(lambda c: take_ids(c, "a", 1))
    assert await b.write(put("b", 1)) == 1
    held.let_go()
    await holding


async def test_a_statement_that_takes_too_long_is_unavailable(postgres, monkeypatch) -> None:
    monkeypatch.setitem(module.SESSION, "statement_timeout", "1s")
    database = await postgres.open()
    slow, quick = await asyncio.gather(
        database.write(lambda c: c.execute(text("SELECT pg_sleep(60)")) and None),
        database.write(put("a", 1)),
        return_exceptions=True,
    )
    assert isinstance(slow, Unavailable) and "statement timeout" in str(slow)
    assert quick == 1


async def test_a_broker_that_is_paused_inside_a_transaction_lets_the_others_go_on(postgres, clock, monkeypatch) -> None:
    """It holds counters that all need: the server ends its session."""
    monkeypatch.setitem(module.SESSION, "idle_in_transaction_session_timeout", "1s")
    a, b = await postgres.open(), await postgres.open()
    zombie, identity = await member(a, clock, 0)
    us, _ = await member(b, clock, 1)
    held = Held()

    def pause(connection) -> None:
        take_ids(connection, "object", 1)
        held()

    pausing = a.write(pause, identity)
    await asyncio.to_thread(held.inside.wait)
    assert await us.take_over(await controller(us), 0, Sign(1, 0)) == 1
    assert await b.write(lambda c: take_ids(c, "object", 1)) == 1
    held.let_go()
    with pytest.raises(Unavailable):
        await pausing
    with pytest.raises(Fenced):
        await zombie.beat()


async def test_a_server_that_hangs_is_left(postgres, monkeypatch) -> None:
    monkeypatch.setattr(database_module, "ANSWER_TIMEOUT_S", 2)
    database = await postgres.open()
    await database.write(put("a", 1))
    paused = postgres.server.pause(postgres.name)
    try:
        with pytest.raises(Unavailable):
            await database.write(put("b", 1))
        assert database.cuts >= 1
        assert await database.write(put("c", 1)) == 1, "on a new session"
    finally:
        for pid in paused:
            os.kill(pid, signal.SIGCONT)
    assert (await database.read(rows)).keys() == {"a", "c"}


async def test_a_server_that_hangs_in_the_commit_leaves_it_unknown(postgres, monkeypatch) -> None:

    monkeypatch.setattr(database_module, "ANSWER_TIMEOUT_S", 2)
    database = await postgres.open()
    await database.read(rows)
    paused: list[int] = []

    def pause(connection) -> None:
        paused.extend(postgres.server.pause(postgres.name))

    event.listen(database._engine, "commit", pause)
    try:
        with pytest.raises(OutcomeUnknown):
            await database.write(put("a", 1))
    finally:
        event.remove(database._engine, "commit", pause)
        for pid in paused:
            os.kill(pid, signal.SIGCONT)
    assert await database.write(put("b", 1)) == 1


async def test_a_server_that_cannot_be_reached(tmp_path) -> None:
    with pytest.raises(Unavailable, match="cannot open the metadata store postgresql"):
        await Database.open(f"postgresql://u:secret@/x?host={tmp_path}", InlineExecutor(), SystemClock())


async def test_a_server_that_takes_the_connection_and_says_nothing(monkeypatch) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 2)  # the driver's least
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(Unavailable, match="timeout"):
            await Database.open(
                f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/x", InlineExecutor(), SystemClock()
            )


async def test_a_database_that_does_not_exist(postgres) -> None:
    with pytest.raises(Unavailable, match='database "nowhere" does not exist'):
        await Database.open(postgres.server.url("nowhere"), InlineExecutor(), SystemClock())


async def test_a_server_that_is_too_old(postgres, monkeypatch) -> None:
    monkeypatch.setattr(module, "VERSION_MIN", 99)
    with pytest.raises(Invalid, match=r"PostgreSQL \d+\.\d+ is too old: StreamLake needs 99 or newer"):
        await postgres.open()


@pytest.fixture
def read_only(postgres) -> Iterator[Callable[[bool], None]]:
    """Makes the database refuse writes of those who connect from now on, or take them again."""

    def change(refuses: bool) -> None:
        how = "SET default_transaction_read_only = on" if refuses else "RESET default_transaction_read_only"
        postgres.server.sql(f"ALTER DATABASE {postgres.name} {how}")

    yield change
    change(False)


async def test_a_server_that_is_read_only_is_unavailable_until_it_is_not(postgres, read_only) -> None:
    """As after a failover, when the connection still leads to the former primary."""
    database = await postgres.open()
    await database.write(put("a", 1))
    read_only(True)
    postgres.server.end_sessions(postgres.name)
    with pytest.raises(Unavailable):
        await database.read(rows)  # the connection is made anew
    with pytest.raises(Unavailable, match="read-only: give the URL of the primary"):
        await database.write(put("a", 2))
    assert await database.read(rows) == {"a": 1}
    read_only(False)
    with pytest.raises(Unavailable, match="read-only"):
        await database.write(put("a", 3))  # over the connection of the read
    assert await database.write(put("b", 4)) == 1, "a refusal ends the connection"


async def test_a_server_that_is_read_only_when_the_tables_are_to_be_made(server) -> None:
    name = server.database()
    server.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(Unavailable, match=r"postgresql.*read-only: give the URL of the primary"):
        await Database.open(server.url(name), InlineExecutor(), SystemClock())


async def test_a_server_whose_disk_is_full(postgres) -> None:
    full = text("DO $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$")
    database = await postgres.open()
    outcomes = await asyncio.gather(
        database.write(put("a", 1)), database.write(lambda c: c.execute(full)), return_exceptions=True
    )
    assert isinstance(outcomes[1], Full) and "free some space" in str(outcomes[1])
    assert await database.read(rows) == {"a": 1}


async def test_a_password_is_not_told(tmp_path) -> None:
    with pytest.raises(Unavailable) as failed:
        await Database.open(f"postgresql://u:secret@/x?host={tmp_path}", InlineExecutor(), SystemClock())
    assert "secret" not in str(failed.value)


# -- values and settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
async def test_both_forms_of_the_url(postgres, clock, monkeypatch, scheme: str) -> None:
    for name in module.SESSION:
        monkeypatch.setitem(module.SESSION, name, "on" if name == "synchronous_commit" else "7s")
    executor = ThreadExecutor("metadata")
    database = await Database.open(postgres.url.replace("postgresql", scheme, 1), executor, clock)
    settings = {
        name: await database.write(lambda c, n=name: c.execute(text(f"SHOW {n}")).scalar()) for name in module.SESSION
    }
    assert settings == module.SESSION
    reading = await database.read(lambda c: c.execute(text("SHOW statement_timeout")).scalar())
    assert reading == f"{module.READ_TIMEOUT_S}s", "a large table takes longer to read"
    await database.close()
    executor.close()


async def test_what_the_database_cannot_hold_is_invalid(postgres) -> None:
    database = await postgres.open()
    outcomes = await asyncio.gather(
        database.write(put("nul \0", 1)),
        database.write(put("big", 2**70)),
        database.write(put("ok", 1)),
        return_exceptions=True,
    )
    assert [type(o) for o in outcomes[:2]] == [Invalid, Invalid]
    assert await database.read(rows) == {"ok": 1}


async def test_the_clock_of_the_server_rules(postgres, clock) -> None:
    database = await postgres.open(real_clock=True)
    before = SystemClock().now_ms()
    now_ms = await database.read(database.now_ms)
    assert before - 5 <= now_ms <= SystemClock().now_ms() + 5
    assert abs(now_ms - clock.now_ms()) > 1_000_000


def test_a_line_without_a_connection() -> None:
    line = module.Line()
    line.cut()
    line.close()
    line.close()

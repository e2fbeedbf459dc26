"""Topics as tables in every kind of catalog: names, evolution, tables that are dropped, writers that race.

The committer, the files and the servers are real; the log is in memory. `World.check` is the promise: every position of
the log is in the table or in its dead letters, and none is there twice.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from pyiceberg.transforms import BucketTransform
from pyiceberg.types import BooleanType
from support.catalog_kinds import CREATED_ONLY, FOLDED, KEPT, NAMES, REFUSED, CatalogKind, RunningCatalog
from support.table_world import BAD, Pause, World, drain, good

from streamlake.catalogs.kinds import capabilities_of
from streamlake.core.errors import Conflict, Fenced, Invalid
from streamlake.core.tasks import ThreadExecutor
from streamlake.table.commit import expiry
from streamlake.table.commit.progress import TAG
from streamlake.table.upkeep.maintenance import Maintenance

pytestmark = pytest.mark.whole

FOREIGN_WRITERS = 2
FOREIGN_APPENDS = 3
ROUNDS = 5
numbers = itertools.count(1)

NewWorld = Callable[..., World]
Saw = Callable[[str], None]


@pytest.fixture
def new_world(running: RunningCatalog) -> NewWorld:
    def make(partitions: int = 1, **options: object) -> World:
        defaults = {"catalog": running.connect(), "topic": f"topic{next(numbers)}", "namespace": "topics"}
        world = World(partitions, **{**defaults, **options})  # type: ignore[arg-type]
        world.capabilities = capabilities_of(running.kind, world.catalog.inner)
        return world

    return make


@pytest.fixture
def threads() -> Iterator[ThreadExecutor]:
    executor = ThreadExecutor("tables", 4)
    yield executor
    executor.close()


def tables_of(world: World) -> list[str]:
    catalog = world.catalog.inner
    namespace = world.identifier[:-1]
    return [found[-1] for found in catalog.list_tables(namespace)] if catalog.namespace_exists(namespace) else []


async def test_a_topic_evolves_over_two_lives(new_world: NewWorld) -> None:
    world = new_world(2, partition_by="[bucket(n, 2)]")
    world.log.produce(0, [*good(range(20)), BAD])
    world.log.produce(1, good(range(5)))
    await world.life().drain()
    world.check()
    world.log.produce(0, good(range(20), 2))
    life = world.life()
    await life.drain()
    world.check()
    table = world.load()
    assert life.table.main.progress.rows == 45
    assert "note" in table.schema().column_names
    assert len(list(table.scan("n = 3").plan_files())) < len(list(table.scan().plan_files()))


async def test_what_is_not_kept_is_in_the_status(new_world: NewWorld, kind: CatalogKind, saw: Saw) -> None:
    world = new_world()
    life = await world.opened()
    await life.rounds(3)
    metadata = world.load().metadata
    assert (TAG in metadata.refs) == kind.keeps_tags
    assert (len(metadata.snapshots) > 1) == kind.keeps_history
    lost = [what for what, kept in (("tags", kind.keeps_tags), ("history", kind.keeps_history)) if not kept]
    assert ("keeps no" in life.table.note) == bool(lost)
    assert all(f"no {what}" in life.table.note for what in lost)
    if lost:
        saw(f"no {', no '.join(lost)}")


async def test_files_of_expired_snapshots(
    new_world: NewWorld, kind: CatalogKind, saw: Saw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go, unless the catalog has uses for them that we cannot see."""
    monkeypatch.setattr(expiry, "KEEP_DEFAULT", 2)
    world = new_world()
    life = await world.opened()
    await life.rounds(1)
    upkeep = Maintenance(life.table.main, world.clock, grace_ms=0)
    lists = set()
    for _ in range(4):
        await life.rounds(1)
        upkeep.observe(world.load())
        lists.add(world.load().current_snapshot().manifest_list)
    assert upkeep.due
    await upkeep.sweep(world.load())
    left = {found for found in lists if world.load().io.new_input(found).exists()}
    assert world.load().current_snapshot().manifest_list in left
    assert (left < lists) == kind.lets_remove
    saw("are removed" if kind.lets_remove else "stay: gc.enabled is false")


@pytest.mark.parametrize("label", NAMES)
async def test_a_name(new_world: NewWorld, kind: CatalogKind, saw: Saw, label: str) -> None:
    name = NAMES[label]
    world = new_world(namespace="names", name=name)
    world.log.produce(0, [*good(range(3)), BAD])
    fate = kind.fate(label)
    saw("ok" if fate == KEPT else fate)
    if fate in (KEPT, FOLDED):
        await world.life().drain()
        world.check()
        assert (name if fate == KEPT else name.lower()) in tables_of(world)
        return
    with pytest.raises(Exception, match=r".+"):
        await world.life().drain()
    made = {found for found in tables_of(world) if found.startswith(name)}
    assert made == ({f"{name}__dlq"} if fate == CREATED_ONLY else set())


async def test_two_topics_whose_names_differ_in_case(new_world: NewWorld, kind: CatalogKind, saw: Saw) -> None:
    if kind.fate("upper case") == REFUSED:
        saw(REFUSED)
        return
    lower, upper = (new_world(namespace="cases", name=name, topic=name) for name in ("payments", "Payments"))
    lower.log.produce(0, good(range(3)))
    upper.log.produce(0, good(range(5)))
    await lower.life().drain()
    if kind.folds_case:
        with pytest.raises(Invalid, match="of topic payments"):
            await upper.life().drain()
        saw("the second is refused")
    else:
        await upper.life().drain()
        upper.check()
    lower.check()


async def test_a_namespace_in_a_namespace(new_world: NewWorld, kind: CatalogKind, saw: Saw) -> None:
    world = new_world(namespace="company.shop")
    world.log.produce(0, good(range(3)))
    if not kind.nested_namespaces:
        with pytest.raises(Exception, match=r".+"):
            await world.life().drain()
        saw(REFUSED)
        return
    await world.life().drain()
    world.check()
    catalog = world.catalog.inner
    assert ("company", "shop") in catalog.list_namespaces("company")
    assert len(catalog.load_table(f"company.shop.{world.topic}").scan().to_arrow()) == 3


# -- tables that are dropped ------------------------------------------------------------------------------------------


async def test_dropped_under_a_running_committer(new_world: NewWorld) -> None:
    """The table stops until a person says what is meant; enabled once more it is built from the log."""
    world = new_world()
    life = await world.opened()
    await life.rounds(2)
    world.catalog.inner.drop_table(world.identifier)
    with pytest.raises(Invalid, match="is gone from the catalog"):
        await life.rounds(1)
    with pytest.raises(Invalid, match="is gone from the catalog"):
        await world.opened()
    assert world.topic not in tables_of(world)
    await enabled_once_more(world)


@pytest.mark.parametrize("created_again", [False, True], ids=["", "and created again"])
async def test_dropped_in_the_middle_of_a_commit(new_world: NewWorld, created_again: bool) -> None:
    world = new_world()
    life = await world.opened()
    await life.rounds(2)
    schema = world.load().schema()
    pause = Pause(world.executor, "_commit")
    world.log.produce(0, good([7]))
    committing = asyncio.ensure_future(life.round())
    await pause.reached.wait()
    world.catalog.inner.drop_table(world.identifier)
    if created_again:
        world.catalog.inner.create_table(world.identifier, schema)
    pause.go.set()
    with pytest.raises(Invalid, match=r"is gone from the catalog|no longer shows what StreamLake committed"):
        await committing
    assert world.rows() == []
    await enabled_once_more(world)


async def enabled_once_more(world: World) -> None:
    """As by disabling and enabling the table of the topic, its dead letters dropped too."""
    if world.topic + "__dlq" in tables_of(world):
        world.catalog.inner.drop_table((world.identifier[0], world.topic + "__dlq"))
    world.committed_once = False
    world.log.produce(0, good([8, 9]))
    await world.life().drain()
    world.check()


# -- writers that race ------------------------------------------------------------------------------------------------


async def test_a_zombie_wakes_in_the_middle_of_its_commit(new_world: NewWorld) -> None:
    world = new_world()
    zombie = await world.opened()
    await zombie.rounds(1)
    world.log.produce(0, [*good([1, 2]), BAD])
    pause = Pause(world.executor, "_commit")
    woken = asyncio.ensure_future(zombie.round())
    await pause.reached.wait()
    world.executor.before = None
    successor = await world.opened()
    world.log.produce(0, good([3]))
    await successor.round()
    pause.go.set()
    with pytest.raises((Conflict, Fenced)):
        await woken
    await successor.rounds(1)
    world.check()


async def test_a_zombie_wakes_in_the_middle_of_its_first_commit(
    new_world: NewWorld, kind: CatalogKind, saw: Saw
) -> None:
    """Where that lands, its successor fills up again what it hides."""
    world = new_world()
    zombie = await world.opened()
    world.log.produce(0, good([1, 2]))
    pause = Pause(world.executor, "_commit")  # which claims the table that it has made
    woken = asyncio.ensure_future(zombie.round())
    await pause.reached.wait()
    world.executor.before = None
    successor = await world.opened()
    world.log.produce(0, good([3]))
    await successor.rounds(2)
    pause.go.set()
    outcome = (await asyncio.gather(woken, return_exceptions=True))[0]
    assert isinstance(outcome, Conflict | Fenced) if kind.fences_first_commit else outcome is True
    world.log.produce(0, good([4]))
    await drain(world)
    world.check()
    if outcome is True:
        saw("it lands, and is mended")


async def test_committers_of_one_table_at_once(new_world: NewWorld, threads: ThreadExecutor) -> None:
    """Each takes the table over from the one before it, while that goes on; they create it and its namespace at once."""
    world = new_world(namespace="created_at_once")
    world.executor = threads  # type: ignore[assignment]

    async def live() -> None:
        try:
            life = await world.opened()
            await life.rounds(ROUNDS)
        except (Conflict, Fenced):
            pass

    await asyncio.gather(*(live() for _ in range(3)))
    await world.life().drain()
    world.check()


async def test_topics_that_share_a_catalog(
    new_world: NewWorld, running: RunningCatalog, threads: ThreadExecutor
) -> None:
    """A worker has one catalog object for the threads of all its tables."""
    shared = running.connect()
    worlds = [new_world(catalog=shared) for _ in range(4)]

    async def live(world: World) -> None:
        world.executor = threads  # type: ignore[assignment]
        life = await world.opened()
        await life.rounds(ROUNDS)

    await asyncio.gather(*(live(world) for world in worlds))
    for world in worlds:
        assert len(world.rows()) == ROUNDS
        world.check()


async def test_engines_append_to_the_table_beside_us(
    new_world: NewWorld, running: RunningCatalog, kind: CatalogKind, threads: ThreadExecutor
) -> None:
    world = new_world()
    world.executor = threads  # type: ignore[assignment]
    await (await world.opened()).rounds(1)

    def append() -> None:
        catalog = running.connect()
        for _ in range(FOREIGN_APPENDS):
            while True:
                table = catalog.load_table(world.identifier)
                try:
                    table.append(table.scan(limit=1).to_arrow().slice(0, 1))
                    break
                except kind.append_overtaken:
                    pass

    async def commit() -> None:
        for n in range(ROUNDS):
            world.log.produce(0, good([n]))
            await drain(world)

    await asyncio.gather(commit(), *(asyncio.to_thread(append) for _ in range(FOREIGN_WRITERS)))
    rows = Counter(world.rows())
    assert rows.keys() == world.log.data
    assert rows.total() == len(world.log.data) + FOREIGN_WRITERS * FOREIGN_APPENDS  # theirs and ours, none lost


async def test_an_engine_evolves_the_table_beside_us(new_world: NewWorld) -> None:
    """Columns and partitions of its own; the committer takes both over."""
    world = new_world()
    life = await world.opened()
    await life.rounds(1)
    with world.load().update_schema() as schema:
        schema.add_column("checked", BooleanType())
    world.log.produce(0, good([2], 2))
    with pytest.raises(Conflict):
        await life.round()
    await life.drain()
    world.check()
    with world.load().update_spec() as spec:
        spec.add_field("n", BucketTransform(4), "n_bucket")
    world.log.produce(0, [*good([3, 4], 2), BAD])
    await drain(world)
    world.check()
    table = world.load()
    assert {"n", "note", "checked"} <= set(table.schema().column_names)
    assert {task.file.spec_id for task in table.scan("n >= 3").plan_files()} == {table.spec().spec_id}

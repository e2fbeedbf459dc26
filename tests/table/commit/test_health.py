"""Files of a table that somebody else deleted: seen before the next commit, said, and waited for."""

import asyncio

import pytest
from support.table_world import BAD, World, good

from streamlake.core.errors import Conflict
from streamlake.table.commit import health
from streamlake.table.commit.health import MANIFESTS_A_LOOK, Health, Unreadable


async def world_of(rounds: int) -> World:
    world = World()
    life = await world.opened()
    for n in range(rounds):
        world.log.produce(0, [*good([n]), BAD])
        await life.round()
    return world


def head_files(world: World, suffix: str = "") -> dict[str, str]:
    table = world.load(suffix)
    head = table.current_snapshot()
    manifests = [m.manifest_path for m in head.manifests(table.io)]
    return {
        "metadata file": table.metadata_location,
        "manifest list": head.manifest_list,
        "newest manifest": manifests[0],
        "oldest manifest": manifests[-1],
    }


KINDS = ["metadata file", "manifest list", "newest manifest", "oldest manifest"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", ["", "__dlq"])
async def test_a_table_whose_files_are_gone_is_not_taken_over(kind: str, suffix: str) -> None:
    world = await world_of(3)
    location = head_files(world, suffix)[kind]
    kept = world.files.pop(location)
    world.log.produce(0, good([7]))
    commits = world.catalog.commits
    for _ in range(2):
        with pytest.raises(Unreadable, match=f"orders{suffix} cannot be read.*{kind.split()[-1]}.*{location}"):
            await world.life().table.open()
    assert world.catalog.commits == commits  # nothing was claimed
    world.files[location] = kept
    await world.life().drain()
    world.check()


async def test_a_damaged_manifest_list_is_no_list() -> None:
    world = await world_of(1)
    location = head_files(world)["manifest list"]
    kept = world.files[location]
    middle = len(kept) // 2
    turned = [kept[:at] + bytes([kept[at] ^ 0xFF]) + kept[at + 1 :] for at in range(middle, middle + 200, 10)]
    for damaged in (b"", kept[:-30], kept[:middle], b"x" * len(kept), *turned):
        world.files[location] = damaged
        with pytest.raises(Unreadable, match=f"manifest list {location} is damaged"):
            await world.life().table.open()
    world.files[location] = kept
    await world.life().drain()
    world.check()


async def test_a_store_that_does_not_answer_is_not_a_file_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await world_of(1)

    def silent(*_: object) -> None:
        raise TimeoutError("the store does not answer")

    monkeypatch.setattr(health, "read_manifest_list", silent)
    with pytest.raises(TimeoutError):
        await world.life().table.open()
    monkeypatch.undo()
    await world.life().drain()
    world.check()


async def test_a_look_is_seldom_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each manifest that is looked at is a request to the store."""
    world = await world_of(MANIFESTS_A_LOOK + 5)
    table = world.load()
    asked: list[str] = []
    monkeypatch.setattr("support.table_world.MemoryFile.exists", lambda file: asked.append(file.location) or True)
    now = 1_000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    seen = Health(world.executor)  # type: ignore[arg-type]
    await seen.look(table, committing=True)
    assert len(asked) == MANIFESTS_A_LOOK
    await seen.look(table, committing=True)
    now += health.LOOK_S
    await seen.look(table, committing=False)
    assert len(asked) == MANIFESTS_A_LOOK
    await seen.look(table, committing=True)
    assert len(set(asked)) == len(asked) == MANIFESTS_A_LOOK + 5  # in turn: none is left out
    asked.clear()
    now += health.LOOK_IDLE_S
    await seen.look(table, committing=False)
    assert len(asked) == MANIFESTS_A_LOOK
    await seen.check(table)
    assert len(asked) == 2 * MANIFESTS_A_LOOK + 5


async def test_a_look_that_misses_a_file_asks_to_load_again() -> None:
    """Another engine may have moved on, and removed what the table that we know needed."""
    world = await world_of(2)
    table = world.load()
    del world.files[head_files(world)["oldest manifest"]]
    with pytest.raises(Conflict, match="is gone"):
        await Health(world.executor).look(table, committing=True)  # type: ignore[arg-type]


async def test_a_table_that_grows_quickly_has_its_oldest_files_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LOOK_S", 0.0)
    world = World()
    life = await world.opened()
    await life.rounds(25)
    del world.files[head_files(world)["oldest manifest"]]
    rounds = 0
    with pytest.raises(Conflict, match="is gone"):
        while rounds < 30:
            world.log.produce(0, good([1]))
            await life.round()
            rounds += 1
    assert rounds <= 3  # of ten each


async def test_after_a_doubt_all_is_looked_at_once() -> None:
    world = await world_of(2 * MANIFESTS_A_LOOK)
    table = world.load()
    seen = Health(world.executor)  # type: ignore[arg-type]
    await seen.check(table)
    del world.files[head_files(world)["newest manifest"]]
    await seen.look(table, committing=True)
    seen.doubt()
    with pytest.raises(Conflict, match="is gone"):
        await seen.look(table, committing=True)


async def test_a_table_without_snapshots_is_readable() -> None:
    world = World()
    await world.life().table.open()
    await Health(world.executor).check(world.load("__dlq"))  # type: ignore[arg-type]

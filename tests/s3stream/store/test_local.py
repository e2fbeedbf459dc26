"""LocalStore: the contract on both disks, and what is left after a failure or a power cut at every single step."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from contracts.objectstore_contract import ObjectStoreContract, keys
from simulation.world.disk import SimDisk

from streamlake.core.disk import RealDisk
from streamlake.core.errors import Exists, Full, Invalid, NotFound, OutcomeUnknown, StreamLakeError, Unavailable
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor, ThreadExecutor
from streamlake.s3stream.store import local
from streamlake.s3stream.store.local import LocalStore


class TestOnRealDisk(ObjectStoreContract):
    @pytest.fixture
    def executor(self) -> Iterator[ThreadExecutor]:
        executor = ThreadExecutor("store", 4)
        yield executor
        executor.close()

    @pytest.fixture
    async def store(self, tmp_path: Path, executor: ThreadExecutor) -> LocalStore:
        return await LocalStore.open(str(tmp_path / "objects"), RealDisk(), executor, Ids())


class TestOnSimDisk(ObjectStoreContract):
    @pytest.fixture
    async def store(self) -> LocalStore:
        return await open_store(SimDisk())


async def open_store(disk: SimDisk) -> LocalStore:
    return await LocalStore.open("/data/objects", disk, InlineExecutor(), Ids(1))


class Power(Exception):
    pass


def stop_at(disk: SimDisk, operation_number: int, error: BaseException) -> None:
    """The operation with this number, counted from now, fails with `error`; after it all work again."""
    left = operation_number

    def before(operation: str, path: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise error

    disk.before = before


async def after_power_cut(disk: SimDisk, seed: int) -> bytes | None:
    """What object a/b holds in the next life; None if it is not there."""
    store = await open_store(disk.crash(Random(seed)))
    found = [(m.key, m.size) async for m in store.list("")]
    try:
        data = await store.get("a/b")
    except NotFound:
        assert found == []
        return None
    assert found == [("a/b", len(data))]
    return data


@pytest.mark.parametrize("method", ["put", "create"])
async def test_an_object_is_durable_when_the_call_returns(method: str) -> None:
    """Hazard C1: fails if any sync, of the file, its directory or the directories above, is left out."""
    for seed in range(60):
        disk = SimDisk()
        store = await open_store(disk)
        await getattr(store, method)("a/b", [b"data" * 300])
        assert await after_power_cut(disk, seed) == b"data" * 300


async def test_exists_is_not_said_of_a_name_that_a_power_cut_could_take() -> None:
    """A create whose directory sync failed is tried again, finds its own bytes, and is acknowledged for it."""
    for seed in range(30):
        disk = SimDisk()
        store = await open_store(disk)
        failing = [True]

        def fail_once(operation: str, path: str, failing: list[bool] = failing) -> None:
            if operation == "sync_dir" and path.endswith("/a") and failing.pop():
                failing.append(False)
                raise OSError(5, "input/output error")

        disk.before = fail_once
        with pytest.raises(OutcomeUnknown):
            await store.create("a/b", [b"data"])
        with pytest.raises(Exists):
            await store.create("a/b", [b"data"])
        assert await after_power_cut(disk, seed) == b"data"


@pytest.mark.parametrize("missing", ["sync", "sync_dir"])
async def test_the_test_above_notices_a_missing_sync(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for seed in range(60):
        disk = SimDisk(syncs=missing != "sync")
        if missing == "sync_dir":
            monkeypatch.setattr(SimDisk, "sync_dir", lambda self, path: None)
        store = await open_store(disk)
        await store.put("a/b", [b"data" * 300])
        found.add(await after_power_cut(disk, seed))
    assert found > {b"data" * 300}


@pytest.mark.parametrize("method", ["put", "create"])
async def test_after_a_power_cut_at_any_step_an_object_is_whole_or_as_before(method: str) -> None:
    old, new = b"old" * 300, b"new" * 400
    outcomes = set()
    for step in range(1, 20):
        for seed in range(12):
            disk = SimDisk()
            store = await open_store(disk)
            if method == "put":
                await store.put("a/b", [old])
            stop_at(disk, step, Power())
            acked = False
            try:
                await getattr(store, method)("a/b", [new])
                acked = True
            except Power:
                pass
            found = await after_power_cut(disk, seed)
            assert found == new if acked else found in (new, old if method == "put" else None)
            outcomes.add((acked, found == new))
    assert outcomes == {(True, True), (False, True), (False, False)}


async def test_delete_is_durable_when_it_returns() -> None:
    for seed in range(30):
        disk = SimDisk()
        store = await open_store(disk)
        await store.put("a/b", [b"x"])
        await store.delete(["a/b"])
        assert await after_power_cut(disk, seed) is None


@pytest.mark.parametrize("method", ["put", "create"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
async def test_an_error_at_any_step_tells_what_is_known(method: str, code: int) -> None:
    """Full or Unavailable: certainly not stored. OutcomeUnknown: may be."""
    raised: set[type[StreamLakeError]] = set()
    for step in range(1, 20):
        disk = SimDisk()
        store = await open_store(disk)
        stop_at(disk, step, OSError(code, "planned"))
        try:
            await getattr(store, method)("a/b", [b"data"])
            continue
        except StreamLakeError as error:
            raised.add(type(error))
            if isinstance(error, Full):
                assert code != errno.EIO and "the disk is full" in str(error)
            if isinstance(error, Full | Unavailable):
                assert await keys(store) == []
        disk.before = None
        assert disk.listdir("/data/objects/.tmp") == [], "nothing is left behind"
    assert raised == {OutcomeUnknown, Unavailable if code == errno.EIO else Full}


async def test_a_disk_that_is_really_full() -> None:
    disk = SimDisk(capacity_bytes=1000)
    store = await open_store(disk)
    await store.put("a", [bytes(600)])
    with pytest.raises(Full, match="disk is full"):
        await store.put("b", [bytes(600)])
    await store.delete(["a"])
    await store.put("b", [bytes(600)])


async def test_temporary_files_of_an_earlier_life_are_swept() -> None:
    disk = SimDisk()
    store = await open_store(disk)
    stop_at(disk, 3, Power())
    with pytest.raises(Power):
        await store.put("a/b", [b"x"])
    disk.before = None
    disk.open("/data/objects/.tmp/left", create=True)
    disk = disk.kill()
    store = await open_store(disk)
    assert disk.listdir("/data/objects/.tmp") == []
    assert await keys(store) == []


@pytest.mark.parametrize("method", ["put", "create"])
@pytest.mark.parametrize("step", range(1, 12))
async def test_what_another_process_is_storing_is_not_swept(method: str, step: int) -> None:
    """Brokers of a cluster may share a directory, and one of them may start while another one stores an object."""
    disk = SimDisk()
    store = await open_store(disk)
    other = LocalStore("/data/objects", disk.session(), InlineExecutor(), Ids(2))
    left = step

    def before(operation: str, path: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            other._sweep()

    disk.before = before
    await getattr(store, method)("a/b", [b"x"])
    disk.before = None
    assert left < step and await store.get("a/b") == b"x"
    assert disk.listdir("/data/objects/.tmp") == []


@pytest.mark.parametrize("kind", ["real", "simulated"])
async def test_an_object_and_a_folder_cannot_share_a_name(kind: str, tmp_path: Path) -> None:
    disk = RealDisk() if kind == "real" else SimDisk()
    store = await LocalStore.open(str(tmp_path / "objects"), disk, InlineExecutor(), Ids(1))
    await store.put("a/b", [b"x"])
    for method in (store.put, store.create):
        for key in ("a", "a/b/c"):
            with pytest.raises(Invalid, match="taken"):
                await method(key, [b"y"])
    assert await keys(store) == ["a/b"]


async def test_create_of_the_same_bytes_is_refused_too() -> None:
    store = await open_store(SimDisk())
    await store.create("a", [b"x"])
    with pytest.raises(Exists):
        await store.create("a", [b"x"])


@pytest.mark.parametrize("key", ["../x", "/x", "a//b", "", ".tmp/x"])
async def test_keys_are_checked_everywhere(key: str) -> None:
    store = await open_store(SimDisk())
    for call in (
        store.put(key, []),
        store.create(key, []),
        store.get(key),
        store.get_range(key, 0, 1),
        store.delete([key]),
    ):
        with pytest.raises(Invalid):
            await call


async def test_negative_ranges_are_invalid() -> None:
    store = await open_store(SimDisk())
    await store.put("a", [b"x"])
    for start, length in ((-1, 1), (0, -1)):
        with pytest.raises(Invalid):
            await store.get_range("a", start, length)


async def test_reading_and_listing_a_sick_disk_is_unavailable() -> None:
    disk = SimDisk()
    store = await open_store(disk)
    await store.put("a", [b"x"])
    stop_at(disk, 1, OSError(errno.EIO, "planned"))
    with pytest.raises(Unavailable):
        await store.get("a")
    stop_at(disk, 1, OSError(errno.EIO, "planned"))
    with pytest.raises(Unavailable):
        await keys(store)
    stop_at(disk, 1, OSError(errno.EIO, "planned"))
    with pytest.raises(OutcomeUnknown):
        await store.delete(["a"])
    stop_at(disk, 1, OSError(errno.EIO, "planned"))
    with pytest.raises(Unavailable):
        await open_store(disk)


async def test_what_goes_through_is_counted() -> None:
    store = await open_store(SimDisk())
    await store.put("a", [b"abc", b"d"])
    await store.create("b", [b"xy"])
    await store.get("a")
    await store.get_range("b", 1, 1)
    await keys(store)
    await store.delete(["a", "b"])
    counted = (store.puts, store.gets, store.lists, store.deletes, store.bytes_in, store.bytes_out)
    assert counted == (2, 2, 1, 2, 6, 5)


class CountingExecutor(InlineExecutor):
    def __init__(self) -> None:
        self.runs = 0

    async def run(self, fn: Callable[..., Any], *args: Any) -> Any:
        self.runs += 1
        return await super().run(fn, *args)


async def test_what_the_system_has_in_memory_is_read_without_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the first time, as to open the file may read from the disk; and not if it is much."""
    cached: list[tuple[int, int]] = []

    class Disk(RealDisk):
        def read_cached(self, path: str, size: int, offset: int) -> memoryview | None:
            cached.append((size, offset))
            with open(path, "rb") as file:
                return memoryview(file.read()[offset : offset + size])

    monkeypatch.setattr(local, "CACHED_BYTES_MAX", 4)
    executor = CountingExecutor()
    store = await LocalStore.open(str(tmp_path / "objects"), Disk(), executor, Ids())
    await store.put("a/b", [b"0123456789"])
    executor.runs = 0
    assert await store.get_range("a/b", 2, 3) == b"234" and (executor.runs, cached) == (1, [])
    assert await store.get_range("a/b", 2, 3) == b"234" and (executor.runs, cached) == (1, [(3, 2)])
    assert await store.get_range("a/b", 2, 5) == b"23456" and (executor.runs, cached) == (2, [(3, 2)])
    assert (store.gets, store.bytes_out) == (3, 11)


async def test_what_is_not_in_memory_is_read_in_a_thread(tmp_path: Path) -> None:
    class Disk(RealDisk):
        def read_cached(self, path: str, size: int, offset: int) -> None:
            return None

    executor = CountingExecutor()
    store = await LocalStore.open(str(tmp_path / "objects"), Disk(), executor, Ids())
    await store.put("a/b", [b"0123456789"])
    executor.runs = 0
    for _ in range(2):
        assert await store.get_range("a/b", 2, 3) == b"234"
    assert executor.runs == 2
    await store.delete(["a/b"])
    with pytest.raises(NotFound):
        await store.get_range("a/b", 2, 3)

"""Both disks keep one contract; the simulated one loses what was not synced; the real one syncs what it promises."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from contracts.disk_contract import DiskContract
from simulation.world.disk import PAGE_BYTES, SimDisk

from streamlake.core import disk
from streamlake.core.disk import RealDisk, is_full


class TestRealDisk(DiskContract):
    @pytest.fixture
    def disk(self) -> RealDisk:
        return RealDisk()

    @pytest.fixture
    def root(self, tmp_path: Path) -> str:
        return str(tmp_path)


class TestSimDisk(DiskContract):
    @pytest.fixture
    def disk(self) -> SimDisk:
        disk = SimDisk()
        disk.makedirs("/data")
        return disk

    @pytest.fixture
    def root(self) -> str:
        return "/data"


def test_real_makedirs_syncs_each_new_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is not synced in its parent is gone after a power cut, with all that was synced in it."""
    synced: list[str] = []

    class Spy(RealDisk):
        def sync_dir(self, path: str) -> None:
            synced.append(path)
            super().sync_dir(path)

    disk = Spy()
    disk.makedirs(str(tmp_path / "a" / "b"))
    assert synced[-2:] == [str(tmp_path), str(tmp_path / "a")]
    synced.clear()
    disk.makedirs(str(tmp_path / "a" / "b"))
    assert synced == [], "known by now"
    Spy().makedirs(str(tmp_path / "a" / "b"))
    assert synced[-2:] == [str(tmp_path), str(tmp_path / "a")], "whoever made it may have been killed before the sync"


def test_real_pwrite_goes_on_after_a_short_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwritev", lambda fd, buffers, offset: os.pwrite(fd, b"".join(buffers)[:3], offset))
    file = RealDisk().open(str(tmp_path / "a"), create=True)
    assert file.pwrite([b"abcd", b"efgh"], 1) == 8
    assert file.pread(9, 0) == b"\0abcdefgh"


def test_what_is_in_memory_is_read_without_waiting(tmp_path: Path) -> None:
    """Where the file system can tell."""
    disk, path = RealDisk(), str(tmp_path / "a")
    file = disk.open(path, create=True)
    file.pwrite([b"0123456789"], 0)
    assert disk.read_cached(path, 4, 3) in (b"3456", None)
    assert disk.read_cached(path, 4, 7) is None, "the file ends before"
    assert disk.read_cached(path, 4, 20) is None
    assert disk.read_cached(str(tmp_path / "none"), 1, 0) is None


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EOPNOTSUPP, errno.EIO])
def test_what_is_not_in_memory_takes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    asked: list[int] = []

    def preadv(_fd: int, buffers: list[bytearray], _offset: int, _flags: int) -> int:
        asked.append(sum(map(len, buffers)))
        raise OSError(code, "not now")

    disk, path = RealDisk(), str(tmp_path / "a")
    disk.open(path, create=True).pwrite([bytes(1000)], 0)
    monkeypatch.setattr(os, "preadv", preadv)
    assert disk.read_cached(path, 1000, 0) is None and asked == [1]


def test_half_of_it_in_memory_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "preadv", lambda _fd, buffers, _offset, _flags: max(1, len(buffers[0]) // 2))
    disk, path = RealDisk(), str(tmp_path / "a")
    disk.open(path, create=True).pwrite([bytes(1000)], 0)
    assert disk.read_cached(path, 1000, 0) is None


def test_is_full() -> None:
    assert is_full(OSError(errno.ENOSPC, ""))
    assert is_full(OSError(errno.EDQUOT, ""))
    assert not is_full(OSError(errno.EIO, ""))


def outcomes(prepare: Callable[[SimDisk], None], rounds: int = 200) -> set[bytes | None]:
    """What `/d/a` may hold after a power cut."""
    seen: set[bytes | None] = set()
    for seed in range(rounds):
        disk = SimDisk()
        disk.makedirs("/d")
        prepare(disk)
        after = disk.crash(Random(seed))
        seen.add(after.open("/d/a").pread(10_000, 0) if "a" in after.listdir("/d") else None)
    return seen


def test_unsynced_bytes_may_be_lost_kept_or_torn() -> None:
    old, new = b"o" * 2 * PAGE_BYTES, b"n" * 2 * PAGE_BYTES

    def prepare(disk: SimDisk) -> None:
        file = disk.open("/d/a", create=True)
        file.pwrite([old], 0)
        file.sync()
        disk.sync_dir("/d")
        file.pwrite([new], 0)

    half_old, half_new = old[:PAGE_BYTES], new[:PAGE_BYTES]
    assert outcomes(prepare) == {old, new, half_old + half_new, half_new + half_old}


def test_synced_bytes_under_a_synced_name_stay() -> None:
    def prepare(disk: SimDisk) -> None:
        file = disk.open("/d/a", create=True)
        file.pwrite([b"kept"], 0)
        file.sync()
        disk.sync_dir("/d")

    assert outcomes(prepare) == {b"kept"}


def test_a_name_is_durable_only_after_sync_dir() -> None:
    def prepare(disk: SimDisk) -> None:
        file = disk.open("/d/t", create=True)
        file.pwrite([b"x"], 0)
        file.sync()
        disk.rename("/d/t", "/d/a")

    assert outcomes(prepare) == {None, b"x"}


def test_a_rename_without_sync_may_name_an_empty_file() -> None:
    """Hazard C1: this is what a store does that renames and does not sync."""

    def prepare(disk: SimDisk) -> None:
        disk.open("/d/t", create=True).pwrite([b"x"], 0)
        disk.rename("/d/t", "/d/a")
        disk.sync_dir("/d")

    assert outcomes(prepare) == {b"", b"\0", b"x"}


def test_a_failed_sync_loses_its_pages_for_ever() -> None:
    def prepare(disk: SimDisk) -> None:
        file = disk.open("/d/a", create=True)
        file.sync()
        disk.sync_dir("/d")
        file.pwrite([b"x"], 0)
        disk.before = fail_once("sync")
        with pytest.raises(OSError):
            file.sync()
        file.sync()
        assert file.pread(1, 0) == b"x", "the page cache still shows it"

    assert outcomes(prepare) == {b"", b"\0"}, "the file may have grown, the byte is never there"


def fail_once(operation: str) -> Callable[[str, str], None]:
    left = [1]

    def before(name: str, path: str) -> None:
        if name == operation and left:
            left.pop()
            raise OSError(errno.EIO, "planned", path)

    return before


def test_a_kill_keeps_the_page_cache_and_frees_locks() -> None:
    disk = SimDisk()
    file = disk.open("/a", create=True)
    file.pwrite([b"x"], 0)
    assert file.lock()
    after = disk.kill()
    again = after.open("/a")
    assert again.pread(1, 0) == b"x"
    assert again.lock()
    with pytest.raises(OSError):
        file.pread(1, 0)
    names = [tuple(after.crash(Random(seed)).listdir("/")) for seed in range(50)]
    assert set(names) == {(), ("a",)}, "what was not synced before the kill is not synced by it"


def test_a_full_disk_takes_what_fits_and_says_so() -> None:
    disk = SimDisk(capacity_bytes=5)
    file = disk.open("/a", create=True)
    with pytest.raises(OSError) as caught:
        file.pwrite([b"abc", b"defg"], 0)
    assert is_full(caught.value)
    assert file.pread(9, 0) == b"abcde"
    file.pwrite([b"12345"], 0)


def test_a_disk_that_fills_up_past_the_page_cache_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not that a buffer is still in use: the server stopped for that, where it should have waited for space."""

    def full(_fd: int, _view: memoryview, _offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk, "_write_direct", full)
    monkeypatch.setattr(disk.RealFile, "_open_direct", lambda file: os.dup(file.fileno()))
    file = disk.RealFile(str(tmp_path / "file"), os.O_RDWR | os.O_CREAT)
    with pytest.raises(OSError, match="No space left"):
        file.fill([bytes(disk.DIRECT_MIN_BYTES)])

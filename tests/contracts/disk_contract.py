"""What every Disk does, as far as one can see without cutting the power. A test class inherits this and gives `disk` and `root`."""

import posixpath
from random import Random

import pytest

from streamlake.core.disk import IOV_MAX, Disk


class DiskContract:
    def test_a_file_holds_what_was_written(self, disk: Disk, root: str) -> None:
        file = disk.open(posixpath.join(root, "a"), create=True)
        assert file.pwrite([b"abc", memoryview(b"def"), bytearray(b"g")], 2) == 7
        file.sync()
        assert file.size() == 9
        assert file.pread(100, 0) == b"\0\0abcdefg"
        assert file.pread(3, 4) == b"cde"
        assert file.pread(3, 9) == b""
        file.close()
        assert disk.open(posixpath.join(root, "a")).pread(2, 7) == b"fg"

    def test_many_buffers_are_one_write(self, disk: Disk, root: str) -> None:
        file = disk.open(posixpath.join(root, "a"), create=True)
        parts = [i.to_bytes(2, "big") for i in range(IOV_MAX + 100)]
        assert file.pwrite(parts, 5) == 2 * len(parts)
        assert file.pread(file.size(), 5) == b"".join(parts)

    def test_open_needs_the_file_or_create(self, disk: Disk, root: str) -> None:
        with pytest.raises(FileNotFoundError):
            disk.open(posixpath.join(root, "none"))
        with pytest.raises(FileNotFoundError):
            disk.open(posixpath.join(root, "no", "directory"), create=True)
        disk.open(posixpath.join(root, "a"), create=True).close()
        with pytest.raises(NotADirectoryError):
            disk.open(posixpath.join(root, "a", "b"), create=True)
        with pytest.raises(IsADirectoryError):
            disk.open(root)

    def test_rename_replaces_and_link_does_not(self, disk: Disk, root: str) -> None:
        a, b, c = (posixpath.join(root, name) for name in "abc")
        disk.open(a, create=True).pwrite([b"1"], 0)
        disk.open(b, create=True).pwrite([b"22"], 0)
        with pytest.raises(FileExistsError):
            disk.link(a, b)
        disk.link(a, c)
        disk.rename(a, b)
        assert (disk.size(b), disk.size(c)) == (1, 1)
        assert disk.listdir(root) == ["b", "c"]
        disk.unlink(b)
        assert disk.open(c).pread(9, 0) == b"1"
        with pytest.raises(FileNotFoundError):
            disk.unlink(b)
        with pytest.raises(FileNotFoundError):
            disk.rename(a, b)

    def test_directories(self, disk: Disk, root: str) -> None:
        deep = posixpath.join(root, "x", "y", "z")
        disk.makedirs(deep)
        disk.makedirs(deep)
        assert disk.is_dir(deep)
        assert disk.listdir(posixpath.join(root, "x")) == ["y"]
        assert disk.listdir(posixpath.join(root, "none")) == []
        assert not disk.is_dir(posixpath.join(root, "none"))
        disk.sync_dir(deep)
        with pytest.raises(FileNotFoundError):
            disk.sync_dir(posixpath.join(root, "none"))
        with pytest.raises(FileNotFoundError):
            disk.size(posixpath.join(root, "none"))

    def test_a_lock_keeps_the_second_one_out(self, disk: Disk, root: str) -> None:
        first = disk.open(posixpath.join(root, "lock"), create=True)
        second = disk.open(posixpath.join(root, "lock"))
        assert first.lock()
        assert first.lock()
        assert not second.lock()
        first.close()
        assert second.lock()

    def test_zeros_are_written_where_they_are_wanted(self, disk: Disk, root: str) -> None:
        file = disk.open(f"{root}/a", create=True)
        file.write_zeros(9 << 20, 0)
        file.sync()
        assert file.size() == 9 << 20
        file.pwrite([b"x" * 10_000], 0)
        file.write_zeros(4096, 4096)
        file.write_zeros(5, 1)  # no whole block
        assert file.pread(10_001, 0) == b"x" + bytes(5) + b"x" * 4090 + bytes(4096) + b"x" * 1808 + bytes(1)
        file.close()

    @pytest.mark.parametrize("size_bytes", [0, 1, 5000, 4 << 20, (4 << 20) + 1, (7 << 20) - 4096, (7 << 20) + 4097])
    def test_a_file_is_filled(self, disk: Disk, root: str, size_bytes: int) -> None:
        content = memoryview(Random(size_bytes).randbytes(size_bytes))
        file = disk.open(f"{root}/a", create=True)
        file.fill([content[:100], content[100:100], content[100 : 3 << 20], content[3 << 20 :]])
        file.sync()
        assert file.size() == size_bytes
        assert file.pread(8 << 20, 0) == content
        file.close()

import errno
from random import Random

import pytest
from pyiceberg.io import OutputFile
from simulation.world.disk import SimDisk

from streamlake.catalogs.files.local import DISK, LocalFileIO

LOCATION = "file:///warehouse/ns/t/metadata/snap-1.avro"
PATH = "/warehouse/ns/t/metadata/snap-1.avro"


def output(disk: SimDisk, location: str = LOCATION) -> OutputFile:
    return LocalFileIO({DISK: disk}).new_output(location)


def write(disk: SimDisk, data: bytes, *, overwrite: bool = True) -> None:
    with output(disk).create(overwrite=overwrite) as stream:
        stream.write(data)


def content(disk: SimDisk) -> bytes | None:
    try:
        return disk.open(PATH).pread(1 << 20, 0)
    except FileNotFoundError:
        return None


def test_what_was_closed_survives_every_power_cut() -> None:
    for seed in range(50):
        disk = SimDisk()
        write(disk, b"x" * 3000)
        assert content(disk.crash(Random(seed))) == b"x" * 3000


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_power_cut_at_any_operation_leaves_the_whole_file_or_none(overwrite: bool) -> None:
    steps = operations(overwrite)
    for at in range(steps):
        for seed in range(10):
            disk = SimDisk()
            disk.before = cut_at(at)
            with pytest.raises(PowerCut):
                write(disk, b"x" * 3000, overwrite=overwrite)
            assert content(disk.crash(Random(seed))) in (None, b"x" * 3000)


class PowerCut(BaseException):
    pass


def cut_at(at: int):
    left = [at]

    def before(operation: str, path: str) -> None:
        if left[0] == 0:
            raise PowerCut
        left[0] -= 1

    return before


def operations(overwrite: bool) -> int:
    disk = SimDisk()
    write(disk, b"x" * 3000, overwrite=overwrite)
    return disk.operations


def test_replacing_never_shows_a_torn_file() -> None:
    for at in range(operations(True)):
        disk = SimDisk()
        write(disk, b"old" * 1000)
        disk.before = cut_at(at)
        with pytest.raises(PowerCut):
            write(disk, b"new")
        assert content(disk.crash(Random(at))) in (b"old" * 1000, b"new")


def test_a_longer_leftover_of_a_dead_attempt_leaves_no_tail() -> None:
    disk = SimDisk()
    disk.makedirs("/warehouse/ns/t/metadata")
    disk.open(PATH + ".tmp", create=True).pwrite((b"z" * 100,), 0)
    write(disk, b"short")
    assert content(disk) == b"short"


def test_creating_what_exists_is_refused() -> None:
    disk = SimDisk()
    write(disk, b"first", overwrite=False)
    with pytest.raises(FileExistsError):
        write(disk, b"second", overwrite=False)
    assert content(disk) == b"first"


def test_a_block_that_raises_writes_nothing() -> None:
    disk = SimDisk()
    with pytest.raises(ZeroDivisionError), output(disk).create() as stream:
        stream.write(b"half")
        raise ZeroDivisionError
    assert content(disk) is None


def test_a_full_disk_is_an_error_and_leaves_the_old_file() -> None:
    disk = SimDisk()
    write(disk, b"old")
    disk.capacity_bytes = 10
    with pytest.raises(OSError) as error:
        write(disk, b"n" * 100)
    assert error.value.errno == errno.ENOSPC
    assert content(disk) == b"old"

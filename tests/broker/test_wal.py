"""The WAL of this life: which one a real broker continues when its data directory was moved or copied.

How lives follow one another: tests/broker/test_takeover.py.
"""

import shutil
from pathlib import Path

import pytest

from streamlake import config
from streamlake.broker.machine import RealMachine
from streamlake.broker.process import ServerProcess
from streamlake.cluster.store.stream_metadata import create_streams


def broker(data_dir: Path, wal: str | None = None) -> ServerProcess:
    storage = {"data_dir": data_dir, "wal": wal, "wal_segment_bytes": 65_536, "wal_capacity_bytes": 1 << 20}
    sections = {"server": {"port": 0, "http_port": 0}, "tables": {"enabled": False}, "storage": storage}
    loaded = config.load(None, {}, sections)
    return ServerProcess(loaded, RealMachine(loaded.s3))


async def kept(data_dir: Path, wal: str | None = None) -> list[int]:
    """One acknowledged record, not uploaded, and the broker gone; the ids of its streams."""
    first = broker(data_dir, wal)
    await first.start()
    ids = list(await first.broker.services.database.write(lambda c: create_streams(c, 1)))
    (stream,) = await first.broker.services.streams.open(ids)
    assert first.broker.services.streams.try_reserve(4)
    await stream.append(0, 1, 0, b"keep")
    first.broker.services._failed = True  # a crash: nothing is uploaded at the end
    await first.stop()
    return ids


async def check_kept(data_dir: Path, ids: list[int], wal: str | None = None) -> None:
    again = broker(data_dir, wal)
    await again.start()
    (stream,) = await again.broker.services.streams.open(ids)
    assert b"".join(await stream.read(0, 1, 100)) == b"keep"
    await again.stop()


@pytest.mark.parametrize("wal", ["file", "object"])
async def test_a_data_directory_that_was_moved(tmp_path: Path, wal: str) -> None:
    ids = await kept(tmp_path / "old", wal)
    (tmp_path / "old").rename(tmp_path / "new")
    await check_kept(tmp_path / "new", ids, wal)


@pytest.mark.parametrize("wal", ["file", "object"])
async def test_a_copy_of_a_data_directory_leaves_the_original_alone(tmp_path: Path, wal: str) -> None:
    ids = await kept(tmp_path / "data", wal)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    await check_kept(tmp_path / "copy", ids, wal)
    await check_kept(tmp_path / "data", ids, wal)

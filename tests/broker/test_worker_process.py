"""A worker as a process: the channel to it, its end, and what cannot be started. Its life: test_table_worker.py."""

import asyncio
import sys

import pytest

from streamlake.broker.worker_process import launch


async def test_it_ends_when_it_is_told_nothing_and_the_channel_closes() -> None:
    worker = await launch()
    assert worker.pid > 0 and worker.returncode is None
    worker.writer.close()
    assert await worker.wait() == 1
    assert worker.returncode == 1
    assert await worker.reader.read() == b""


async def test_it_can_be_killed() -> None:
    worker = await launch()
    worker.kill()
    assert await worker.wait() == -9
    worker.writer.close()


async def test_what_cannot_be_started_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(OSError):
        await launch()
    await asyncio.sleep(0)

"""A table worker that the test plays itself, at the other end of the real socket pair: no process, no imports of seconds."""

import asyncio
import os
import signal
import socket
from collections.abc import Sequence
from typing import Any

from support.wait import DEADLINE_S

from streamlake.table.task.control import (
    LINE_BYTES_MAX,
    FromServer,
    FromWorker,
    TableReport,
    WorkerSettings,
    encode,
    read_message,
)


class Process:
    """A worker process, as asyncio shows it; the test holds its end of the pair."""

    def __init__(self, pid: int, command: tuple[str, ...], fd: int) -> None:
        self.pid, self.command = pid, command
        self.returncode: int | None = None
        self.signals: list[int] = []
        self.heeds_sigterm = True
        self._sock = socket.socket(fileno=os.dup(fd))
        self._ended = asyncio.Event()

    async def connect(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(sock=self._sock, limit=LINE_BYTES_MAX)

    async def told(self) -> FromServer:
        async with asyncio.timeout(DEADLINE_S):
            message = await read_message(self.reader, FromServer)
        assert message is not None
        return message

    def report(self, report: TableReport) -> None:
        self.writer.write(encode(FromWorker(report)))

    def end(self, code: int) -> None:
        if self.returncode is None:
            self.returncode = code
            self.writer.close()
            self._ended.set()

    def terminate(self) -> None:
        self.signals.append(signal.SIGTERM)
        if self.heeds_sigterm:
            self.end(0)

    def kill(self) -> None:
        self.signals.append(signal.SIGKILL)
        self.end(-9)

    async def wait(self) -> int | None:
        await self._ended.wait()
        return self.returncode


class FakeWorkers:
    """`exec` takes the place of asyncio.create_subprocess_exec."""

    def __init__(self) -> None:
        self.started: asyncio.Queue[Process] = asyncio.Queue()
        self._pids = iter(range(100, 200))

    async def exec(self, *command: str, pass_fds: Sequence[int], **_: Any) -> Process:
        process = Process(next(self._pids), command, pass_fds[0])
        await process.connect()
        self.started.put_nowait(process)
        return process

    async def next(self) -> tuple[Process, WorkerSettings]:
        async with asyncio.timeout(DEADLINE_S):
            process = await self.started.get()
            settings = await read_message(process.reader, WorkerSettings)
        assert settings is not None
        return process, settings

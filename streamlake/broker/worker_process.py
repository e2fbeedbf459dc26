"""The table worker as a process of its own: started by exec, ended by a signal or by our own death (docs/adr/0005)."""

import asyncio
import os
import socket
import sys
from typing import Protocol

from streamlake.table.task.control import LINE_BYTES_MAX


class WorkerProcess(Protocol):
    """A running worker, and our end of the channel to it (table/task/control.py)."""

    pid: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def returncode(self) -> int | None: ...

    def terminate(self) -> None:
        """Ask it to end; it finishes the commit that is under way."""
        ...

    def kill(self) -> None: ...

    async def wait(self) -> int: ...


class ExecutedWorker:
    """Implements WorkerProcess."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.pid = process.pid
        self.reader = reader
        self.writer = writer
        self._process = process

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    async def wait(self) -> int:
        return await self._process.wait()


async def launch() -> ExecutedWorker:
    """Start one. OSError if it cannot be started."""
    ours, theirs = socket.socketpair()
    try:
        command = [sys.executable, "-m", "streamlake.worker.process", str(theirs.fileno())]
        process = await asyncio.create_subprocess_exec(
            *command, pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL, env=dict(os.environ)
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    reader, writer = await asyncio.open_connection(sock=ours, limit=LINE_BYTES_MAX)
    return ExecutedWorker(process, reader, writer)

"""The flusher whose writes and syncs run in a C thread: under load its acks do not wait for the interpreter's lock.

Same interface and counters as its twin, flusher.Flusher, which does the work where there is no kernel (see
flush_kernel.pyx) or where the file is no file of the operating system, as in simulation.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from streamlake.core import native
from streamlake.core.clock import Clock
from streamlake.core.disk import Buffer, DiskFile, RealFile
from streamlake.core.tasks import Executor
from streamlake.s3stream.wal.file.flusher import Flusher

_kernel = native.load("streamlake.s3stream.wal.file.flush_kernel")


class NativeFlusher(Flusher):
    """Belongs to the event loop of its first flush. `close` it before that loop ends."""

    def __init__(self, executor: Executor, clock: Clock) -> None:
        """`executor` is the twin's, see there."""
        super().__init__(executor, clock)
        self._thread: Any = None
        self._done: asyncio.Future[int | OSError] | None = None  # of the job that the thread has

    async def _write_and_sync(self, file: DiskFile, buffers: Sequence[Buffer], offset: int) -> int:
        if _kernel is None or not isinstance(file, RealFile):
            return await super()._write_and_sync(file, buffers, offset)
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = _kernel.FlushThread()
            loop.add_reader(self._thread.done_fd, self._job_done)
        while self._done is not None:  # of a caller that was cancelled: the thread goes on, and jobs keep their order
            await asyncio.wait([self._done])
        self._thread.submit(file.fileno(), buffers, offset)
        self._done = loop.create_future()
        outcome = await asyncio.shield(self._done)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    def _job_done(self) -> None:
        assert self._done is not None
        try:
            outcome: int | OSError | None = self._thread.result()
        except OSError as error:
            outcome = error
        if outcome is not None:
            self._done.set_result(outcome)
            self._done = None

    async def close(self) -> None:
        """Wait for the job that the thread has, and end the thread."""
        if self._done is not None:
            await asyncio.wait([self._done])
        if self._thread is not None:
            asyncio.get_running_loop().remove_reader(self._thread.done_fd)
            self._thread.stop()
            self._thread = None

"""Load in child processes, and how much CPU time it and a broker on this machine cost.

    with Child(produce_throughput, bootstrap="127.0.0.1:9092", …) as child:
        result = child.result(timeout_s=60, on_progress=bar.update)

A load is a function of a module that takes `tell`, which it calls with how far it is, and returns a dataclass. It runs
in a fresh interpreter: its threads and its CPU time are its own.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from streamlake.core.errors import StreamLakeError, Unavailable

T = TypeVar("T")
Tell = Callable[[int], None]

STOP_TIMEOUT_S = 10
_LISTEN = "0A"  # a socket's state in /proc/net/tcp
_PROGRESS, _ENDED = "progress", "ended"


class Child(Generic[T]):
    """A load under way; at the end of the context it is stopped, if it still runs."""

    def __init__(self, load: Callable[..., T], /, **arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(theirs, load, arguments), daemon=True)
        self._process.start()
        theirs.close()
        self.progress = 0
        self._ended: tuple[T | Exception] | tuple[()] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.is_alive():
            self._process.terminate()
        self._process.join(STOP_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
        self._pipe.close()

    def result(self, timeout_s: float, on_progress: Tell | None = None) -> T:
        """What the load returned, or its error. Unavailable after so many seconds without progress."""
        while not self._ended:
            if not self._receive(timeout_s):
                raise Unavailable(f"the load made no progress for {timeout_s:.0f} s: does the broker answer?")
            if on_progress is not None and not self._ended:
                on_progress(self.progress)
        (ended,) = self._ended
        if isinstance(ended, Exception):
            raise ended
        return ended

    def is_done(self) -> bool:
        """Whether `result` would not wait."""
        while not self._ended and self._receive(0):
            pass
        return bool(self._ended)

    def _receive(self, timeout_s: float) -> bool:
        """Take one message of the child, if there is one in time."""
        if not self._pipe.poll(timeout_s):
            return False
        try:
            kind, value = self._pipe.recv()
        except EOFError:
            self._process.join(STOP_TIMEOUT_S)
            kind, value = _ENDED, Unavailable(f"the load's process ended with {self._process.exitcode}")
        if kind == _ENDED:
            self._ended = (value,)
        else:
            self.progress = value
        return True


def _run(pipe: Connection, load: Callable[..., Any], arguments: dict[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which stops us
    try:
        pipe.send((_ENDED, load(**arguments, tell=lambda done: pipe.send((_PROGRESS, done)))))
    except StreamLakeError as error:
        pipe.send((_ENDED, error))
    except Exception:
        pipe.send((_ENDED, RuntimeError(f"the load failed:\n{traceback.format_exc()}")))
    finally:
        pipe.close()


def in_child(load: Callable[..., T], timeout_s: float, on_progress: Tell | None = None, /, **arguments: Any) -> T:
    """The load's result, from a process of its own. Unavailable after so many seconds without progress."""
    with Child(load, **arguments) as child:
        return child.result(timeout_s, on_progress)


def cpu_s(pid: int) -> float:
    """CPU time of a process with all its threads, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")


def broker_pid(bootstrap: str) -> int | None:
    """Of a broker at a loopback address that this user may look at; None for others."""
    host, _, port = bootstrap.rpartition(":")
    is_here = host in ("localhost", "[::1]") or host.startswith("127.")
    return listener_pid(int(port)) if is_here and port.isdigit() else None


def listener_pid(port: int) -> int | None:
    """Which process on this machine listens there; None if there is none, or it is another user's."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for fd in Path("/proc").glob("[0-9]*/fd/*") if wanted else ():
        try:
            if os.readlink(fd) in wanted:
                return int(fd.parts[2])
        except OSError:
            continue
    return None


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found

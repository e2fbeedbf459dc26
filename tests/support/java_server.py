"""Java programs that serve on a free port of the loopback address; above all one of a single source file, with its jars
from Maven.

Most servers' own main classes listen on every address of the machine, so each has a small main class of ours, started from
its source: that takes a JDK. `Missing` says what is not there.
"""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from support.maven import JAVA_MIN, Missing, jars_of
from support.wait import DEADLINE_S

JAVA = Path(__file__).parent / "java"
HEAP = "-Xmx384m"


class JavaProcess:
    """A Java program that serves on `port` and writes its log to `directory`. `started` says whether it is ready."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self.directory / "server.log").read_text(errors="replace")

    def started(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return True

    def start(self, command: Sequence[str]) -> None:
        """Returns when it is ready."""
        with (self.directory / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()  # its data is thrown away
        self._process.wait()

    def _wait_until_ready(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not self.started():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{type(self).__name__} did not start:\n{self.log[-4000:]}")
            time.sleep(0.1)


class JavaServer(JavaProcess):
    """`folder` of support/java holds pom.xml and the source; `arguments` follow the port."""

    def __init__(
        self, folder: str, directory: Path, arguments: Sequence[str] = (), jvm: Sequence[str] = (), classes: str = ""
    ) -> None:
        super().__init__(directory)
        self._folder = JAVA / folder
        self._arguments = arguments
        self._jvm = jvm
        self._classes = classes  # a directory before the jars

    def __enter__(self) -> "JavaServer":
        if not shutil.which("javac"):
            raise Missing(f"no `javac`: install a Java {JAVA_MIN} JDK")
        path = os.pathsep.join(
            part for part in (self._classes, f"{jars_of(self._folder / 'pom.xml')}{os.sep}*") if part
        )
        (source,) = self._folder.glob("*.java")
        self.start(["java", HEAP, *self._jvm, "-cp", path, str(source), str(self.port), *self._arguments])
        return self


def find_java(version_min: int, program: str) -> str:
    """A Java that is new enough for `program`: that of the PATH, or one of those that Linux distributions install.
    Missing."""
    installed = (str(path) for path in sorted(Path("/usr/lib/jvm").glob("*/bin/java"), reverse=True))
    for java in filter(None, (shutil.which("java"), *installed)):
        told = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
        version = re.search(r'version "(\d+)', told)
        if version and int(version[1]) >= version_min:
            return java
    raise Missing(f"no Java {version_min} or newer, which {program} needs")


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
    return port

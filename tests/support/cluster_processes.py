"""Three brokers, PostgreSQL and an object store, each a process, for tests that hurt them.

Each broker reaches the other two servers over links of its own, which can be parted (link.py), and has a wall clock that
is hours away from those of the others. What `lake/cluster.py`
starts shares one address of each, and one configuration; so the brokers are started here, as child servers, too.
"""

import json
import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
from support.link import Link
from support.seaweedfs import SeaweedFS
from support.wait import DEADLINE_S, wait_until

from streamlake.core.errors import StreamLakeError
from streamlake.lake.child_server import ChildServer
from streamlake.lake.postgres import Postgres

BROKERS = 3
CLOCKS_H = (0.0, 5.0, -5.0)  # by which the wall clocks of the brokers are wrong
# Python runs this first. A broker has its folder in its command line; its table worker inherits the variable.
SET_CLOCK = f"""
import os, re, time
node = re.search(r"/broker-(\\d)", open("/proc/self/cmdline").read().replace(chr(0), " "))
if node:
    os.environ["CLOCK_H"] = str({CLOCKS_H}[int(node[1])])
hours = float(os.environ.get("CLOCK_H", 0))
time_ns, seconds = time.time_ns, time.time
time.time_ns = lambda: time_ns() + int(hours * 3600e9)
time.time = lambda: seconds() + hours * 3600
"""
STOPPED_CLEANLY = "exit code 0"
UPLOAD_BYTES = 2 << 20
CONFIG = """
[server]
node_id = {node}
[storage]
url = "s3://{bucket}/lake"
metadata_url = "{metadata_url}"
wal = "object"
upload_bytes = {upload_bytes}
upload_interval_s = 2.0
gc_interval_s = 2.0
gc_grace_s = 30.0
[s3]
endpoint = "http://127.0.0.1:{s3_port}"
region = "{weed.region}"
access_key = "{weed.access_key}"
secret_key = "{weed.secret_key}"
allow_http = true
[memory]
total_bytes = 402653184
log_cache_bytes = {log_cache_bytes}
block_cache_bytes = 67108864
[tables]
memory_bytes = 67108864
"""


class Broker:
    """One node, and its links to PostgreSQL and to the object store, which can be parted. It is started again, at the
    ports that it had, by `tend`."""

    def __init__(
        self, node: int, folder: Path, postgres: Path, weed: SeaweedFS, bucket: str, log_cache_bytes: int
    ) -> None:
        self.node = node
        self.folder = folder / f"broker-{node}"
        self.folder.mkdir()
        self.postgres_link = Link(postgres)
        s3_port = int(weed.s3_endpoint.rpartition(":")[2])
        self.s3_link = Link(("127.0.0.1", s3_port))
        metadata_url = f"postgresql://streamlake@127.0.0.1:{self.postgres_link.port}/postgres"
        self.config = self.folder / "streamlake.toml"
        values = {
            "node": node, "bucket": bucket, "metadata_url": metadata_url, "s3_port": self.s3_link.port, "weed": weed,
            "log_cache_bytes": log_cache_bytes, "upload_bytes": UPLOAD_BYTES,
        }  # fmt: skip
        self.config.write_text(CONFIG.format(**values))
        self._ports = (0, 0)
        self._told = 0
        self._starting: Future[ChildServer] | None = None
        self.server: ChildServer | None = None
        self.ends: list[str] = []  # what it said when it ended by itself, or could not be started

    def start(self) -> ChildServer:
        server = ChildServer(self.folder, self.config, self._ports)
        self._ports = _port(server.bootstrap), _port(server.http)
        return server

    def tend(self, starter: ThreadPoolExecutor) -> None:
        """Start it if it does not run; returns at once."""
        if self.server is not None:
            if (why := self.server.why_it_ended()) is None:
                return
            self.ends.append(": ".join([why.splitlines()[0].partition(". The end")[0], why.splitlines()[-1]]))
            self.server.stop()
            self.server = None
        if self._starting is None:
            self._starting = starter.submit(self.start)
        elif self._starting.done():
            starting, self._starting = self._starting, None
            try:
                self.server = starting.result()
            except StreamLakeError as error:
                self.ends.append(f"not started: {str(error).splitlines()[0]}")

    def send(self, number: signal.Signals) -> None:
        assert self.server is not None
        os.kill(self.server.pid, number)

    def stop(self) -> None:
        """Cleanly, as Ctrl-C does."""
        assert self.server is not None
        self.server.stop()
        how = self.server.why_it_ended() or ""
        assert STOPPED_CLEANLY in how, f"broker {self.node} did not stop cleanly: {how}"
        self.server = None

    def get(self, path: str) -> str:
        """The body, whatever the status is: /healthz of a broker that is not well answers 503."""
        assert self.server is not None
        try:
            answer = urllib.request.urlopen(self.server.http.rstrip("/") + path, timeout=DEADLINE_S)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            text: str = answer.read().decode()
            return text

    def lost_its_lease(self) -> bool:
        return "the lease has run out" in self.get("/healthz")

    def unuploaded_bytes(self) -> float:
        (number,) = re.findall(r"^streamlake_unuploaded_bytes (.*)$", self.get("/metrics"), re.MULTILINE)
        return float(number)

    def close(self) -> None:
        if self._starting is not None:
            try:
                self.server = self._starting.result()
            except StreamLakeError:
                pass
        if self.server is not None:
            if self.server.why_it_ended() is None:
                self.send(signal.SIGCONT)
                self.send(signal.SIGKILL)
            self.server.stop()
        self.postgres_link.end()
        self.s3_link.end()

    def news(self) -> list[str]:
        """Its log, from where the last call ended."""
        file = self.folder / "server.log"
        lines = file.read_text(errors="replace").splitlines() if file.exists() else []
        new, self._told = lines[self._told :], len(lines)
        return new


class Cluster:
    """All processes. `rest` lets time pass, and starts brokers again that have ended, as a supervisor would."""

    def __init__(self, folder: Path, log_cache_bytes: int = 64 << 20) -> None:
        folder.chmod(0o755)  # PostgreSQL runs as nobody for root
        (folder / "clocks").mkdir()
        (folder / "clocks" / "sitecustomize.py").write_text(SET_CLOCK)
        self._python_path = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder / "clocks"), self._python_path)))
        self._starter = ThreadPoolExecutor(BROKERS)
        self.brokers: list[Broker] = []
        (folder / "weed").mkdir()
        self.weed = SeaweedFS(folder / "weed")
        self.postgres: Postgres | None = None
        self._postgres_folder = folder / "postgres"
        try:
            self.weed.start()
            self.postgres = Postgres(self._postgres_folder)
            self._socket = Path(self.postgres.url.partition("host=")[2])
            bucket = self.weed.bucket()
            for node in range(BROKERS):
                place = self._socket / ".s.PGSQL.5432"
                self.brokers.append(Broker(node, folder, place, self.weed, bucket, log_cache_bytes))
                # On a busy machine one that starts may not beat for a lease, and is fenced.
                self.until(self.all_run, DEADLINE_S, f"broker {node} does not start")
        except BaseException:
            self.close()
            raise
        self.bootstrap = ",".join(broker.server.bootstrap for broker in self.brokers if broker.server)

    def close(self) -> None:
        for broker in self.brokers:
            broker.close()
        self._starter.shutdown()
        if self._python_path is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = self._python_path
        if self.postgres is not None:
            self.postgres.stop()
        self.weed.stop()

    def rest(self, seconds: float) -> None:
        self.until(lambda: False, seconds, "")

    def until(self, holds: Callable[[], object], seconds: float, what: str) -> None:
        """AssertionError with `what`, unless that is empty, if it does not hold in time."""
        until = time.monotonic() + seconds
        while not holds():
            if time.monotonic() >= until:
                assert not what, what
                return
            for broker in self.brokers:
                broker.tend(self._starter)
            time.sleep(0.05)

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        """In one transaction; the rows of the last one."""
        with psycopg.connect(host=str(self._socket), dbname="postgres", user="streamlake") as connection:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def sql_alone(self, statement: str) -> None:
        """One that cannot be part of a transaction."""
        with psycopg.connect(
            host=str(self._socket), dbname="postgres", user="streamlake", autocommit=True
        ) as connection:
            connection.execute(statement)

    def kill_postgres(self) -> None:
        pid = int((self._postgres_folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self.postgres is not None and not self.postgres.is_running)

    def start_postgres(self) -> None:
        """It refuses while processes of the killed one still end."""
        assert self.postgres is not None
        until = time.monotonic() + DEADLINE_S
        while True:
            try:
                self.postgres.start()
                return
            except StreamLakeError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def controller(self) -> int:
        ((node,),) = self.sql("SELECT node FROM controller")
        return int(node)

    def all_run(self) -> bool:
        return all(broker.server is not None and broker.server.why_it_ended() is None for broker in self.brokers)

    def all_is_uploaded(self) -> bool:
        """But for what came since the last rounds of uploads."""
        return all(broker.unuploaded_bytes() < 2 * UPLOAD_BYTES for broker in self.brokers)

    def tables(self) -> dict[str, dict[str, Any]]:
        """By topic, as the broker that writes it tells."""
        found = {}
        for broker in [broker for broker in self.brokers if broker.server is not None]:
            tables = json.loads(broker.get("/v1/tables"))["tables"]
            found |= {t["topic"]: t for t in tables if t["state"] != "elsewhere"}
        return found


def _port(address: str) -> int:
    return int(address.rpartition(":")[2].rstrip("/"))

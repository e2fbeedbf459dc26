"""Several brokers on one machine, as child processes: on PostgreSQL, and a directory or bucket for objects and WALs.

    DIR/cluster.json     where clients find the brokers; rewritten at each change
    DIR/postgres         PostgreSQL's data and log, unless another one is given
    DIR/objects          the object store, unless another one is given
    DIR/broker-N         a broker's configuration, log, and what it keeps for itself

A broker that ends is started again, at the ports that it had. All of it ends with the program that started it; the next
start goes on with the same data.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from streamlake.core.errors import Invalid, StreamLakeError
from streamlake.lake.child_server import ChildServer
from streamlake.lake.postgres import Postgres

CLUSTER_FILE = "cluster.json"
CONFIG_FILE = "streamlake.toml"
RESTART_PAUSE_S = 1.0  # between two starts of a broker that ends at once
BROKERS_MAX = 16


@dataclass(slots=True)
class _Broker:
    node: int
    directory: Path
    server: ChildServer | None = None
    ports: tuple[int, int] = (0, 0)  # Kafka and HTTP; 0 takes a free one
    started_at: float = 0.0


class LocalCluster:
    """`start`, then `watch` again and again, then `stop`. `tell` gets a line for people at each change. `wal`: as
    storage.wal in a configuration, of a kind that brokers can take over from one another."""

    def __init__(
        self,
        directory: Path,
        brokers: int,
        *,
        metadata_url: str | None = None,
        store_url: str | None = None,
        wal: str = "object",
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        if not 1 <= brokers <= BROKERS_MAX:
            raise Invalid(f"{brokers} brokers: give a number from 1 to {BROKERS_MAX}")
        self._directory = directory.absolute()
        self._metadata_url = metadata_url
        self._store_url = store_url or f"file://{self._directory / 'objects'}"
        self._wal = wal
        self._tell = tell
        self._postgres: Postgres | None = None
        self._brokers = [_Broker(node, self._directory / f"broker-{node}") for node in range(brokers)]

    @property
    def bootstrap(self) -> str:
        """Of the brokers that run."""
        return ",".join(broker.server.bootstrap for broker in self._brokers if broker.server is not None)

    @property
    def metadata_url(self) -> str:
        """Of the metadata store. PostgreSQL, if it is ours, runs once `start` was called."""
        if self._metadata_url is not None:
            return self._metadata_url
        assert self._postgres is not None
        return self._postgres.url

    def start(self) -> None:
        """Returns when all brokers serve. On an error all is stopped again."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Invalid(f"{self._directory} cannot be used as a data directory: {error.strerror}") from None
        try:
            if self._metadata_url is None:
                self._postgres = Postgres(self._directory / "postgres")
            first, *others = self._brokers
            self._start(first)  # alone: it makes the tables, and marks the object store
            with ThreadPoolExecutor(len(self._brokers)) as pool:
                list(pool.map(self._start, others))
        except BaseException:
            self.stop()
            raise
        self._announce()

    def watch(self) -> None:
        """Start brokers again that have ended. A broker that cannot be started is tried again the next time."""
        for broker in self._brokers:
            if broker.server is not None and (why := broker.server.why_it_ended()) is not None:
                self._tell(f"broker {broker.node} has ended, and is started again: {why.splitlines()[0]}")
                broker.server.stop()
                broker.server = None
                self._announce()
            if broker.server is None and time.perf_counter() - broker.started_at >= RESTART_PAUSE_S:
                self._start_again(broker)
        if self._postgres is not None and not self._postgres.is_running:
            self._tell("PostgreSQL has ended, and is started again; produce and fetch go on meanwhile")
            self._postgres.start()

    def stop(self) -> None:
        """Brokers first, one after the other: what the first ones had the last one need not take over."""
        running = [broker.server for broker in self._brokers if broker.server is not None]
        if running:
            with ThreadPoolExecutor(len(running)) as pool:
                list(pool.map(ChildServer.stop, running))
        for broker in self._brokers:
            broker.server = None
        if self._postgres is not None:
            self._postgres.stop()
        with contextlib.suppress(OSError):
            (self._directory / CLUSTER_FILE).unlink(missing_ok=True)

    def _start_again(self, broker: _Broker) -> None:
        try:
            self._start(broker)
        except StreamLakeError as error:
            self._tell(f"broker {broker.node} could not be started, trying again: {str(error).splitlines()[0]}")
            broker.ports = (0, 0)  # another program may have taken them
        else:
            self._announce()

    def _start(self, broker: _Broker) -> None:
        broker.started_at = time.perf_counter()
        broker.directory.mkdir(parents=True, exist_ok=True)
        config = broker.directory / CONFIG_FILE
        config.write_text(
            f"[server]\nnode_id = {broker.node}\n\n"
            f"[storage]\nmetadata_url = {json.dumps(self.metadata_url)}\nurl = {json.dumps(self._store_url)}\n"
            f"wal = {json.dumps(self._wal)}\n"
        )
        server = broker.server = ChildServer(broker.directory, config, broker.ports)
        broker.ports = _port(server.bootstrap), _port(server.http)

    def _announce(self) -> None:
        running = [(broker.node, broker.server) for broker in self._brokers if broker.server is not None]
        facts = {
            "bootstrap": self.bootstrap,
            "http": running[0][1].http if running else None,
            "brokers": [
                {"node": node, "pid": server.pid, "bootstrap": server.bootstrap, "http": server.http}
                for node, server in running
            ],
        }
        path = self._directory / CLUSTER_FILE
        aside = path.with_suffix(".new")
        aside.write_text(json.dumps(facts, indent=2) + "\n")
        os.replace(aside, path)  # a program that reads it meanwhile finds the old or the new one, whole


def _port(address: str) -> int:
    return int(address.rpartition(":")[2].rstrip("/"))

"""What a broker gets from outside: time, chance, threads, a disk, an object store, a metadata store.

`Machine` is the port that makes a simulated cluster a pure function of its seed (DESIGN, rule 8): the services of a
broker are built on it and on nothing else. `RealMachine` is the one with real clocks, threads, files and sockets.
"""

from pathlib import Path
from typing import Protocol

from streamlake.cluster.store.database import Database
from streamlake.config import S3, Config
from streamlake.core.clock import Clock, SystemClock
from streamlake.core.disk import Disk, RealDisk
from streamlake.core.ids import Ids
from streamlake.core.tasks import Executor, ThreadExecutor
from streamlake.s3stream.store.local import LocalStore
from streamlake.s3stream.store.port import ObjectStore
from streamlake.s3stream.wal.uri import WalUri
from streamlake.s3stream.wal.uri import parse as wal_uri_parse

METADATA_FILE = "metadata.db"


class Machine(Protocol):
    clock: Clock
    ids: Ids
    disk: Disk

    def executor(self, name: str, threads: int = 1) -> Executor:
        """The executor of this name, made at its first mention. It is closed with the machine."""
        ...

    async def open_store(self, url: str) -> ObjectStore:
        """The object store behind file:///…, s3://…, gs://… or az://…. Invalid, Unavailable."""
        ...

    async def open_metadata(self, url: str) -> Database:
        """The metadata store behind an SQLAlchemy URL, its tables up to date. Invalid, Unavailable, Corrupt."""
        ...

    def close(self) -> None:
        """End the executors, after all that use them."""
        ...


class RealMachine:
    """Implements Machine. `s3`: how buckets are reached."""

    def __init__(self, s3: S3) -> None:
        self.clock: Clock = SystemClock()
        self.ids = Ids()
        self.disk: Disk = RealDisk()
        self._s3 = s3
        self._executors: dict[str, ThreadExecutor] = {}

    def executor(self, name: str, threads: int = 1) -> Executor:
        return self._executors.setdefault(name, ThreadExecutor(name, threads))

    async def open_store(self, url: str) -> ObjectStore:
        executor = self.executor("objects", 2)
        if url.startswith("file://"):
            return await LocalStore.open(url.removeprefix("file://"), self.disk, executor, self.ids)
        from streamlake.s3stream.store.bucket import open_s3
        from streamlake.s3stream.store.client import S3Options  # obstore takes a while to import

        s3 = self._s3
        options = S3Options(
            endpoint=s3.endpoint,
            region=s3.region,
            access_key=s3.access_key,
            secret_key=s3.secret_key,
            allow_http=s3.allow_http,
            path_style=s3.path_style,
        )
        return open_s3(url, self.ids, executor, options)

    async def open_metadata(self, url: str) -> Database:
        return await Database.open(url, self.executor("metadata"), self.clock)

    def close(self) -> None:
        for executor in self._executors.values():
            executor.close()


def metadata_url(config: Config) -> str:
    return config.storage.metadata_url or f"sqlite:///{_data_dir(config)}/{METADATA_FILE}"


def store_url(config: Config) -> str:
    return config.storage.url or f"file://{_data_dir(config)}/objects"


def wal_uri(config: Config) -> WalUri:
    """Invalid if the configuration names no WAL. A broker whose metadata is elsewhere keeps no state here either."""
    default = "file" if metadata_url(config).startswith("sqlite") else "object"
    return wal_uri_parse(config.storage.wal or default, str(_data_dir(config)), store_url(config))


def _data_dir(config: Config) -> Path:
    return config.storage.data_dir.absolute()

"""A real Trino server with the Iceberg connector, on a port of the loopback address: `with Trino(directory, catalog) as t`.

It needs Java 24 or newer, and a gigabyte of disk for what Maven brings and what is unpacked of it, beside the jars.
"""

import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path

from support.java_server import JAVA, JavaProcess, find_java
from support.maven import jars_of
from support.wait import DEADLINE_S

JAVA_MIN = 24
JVM = (
    "-Xmx900m",
    "-XX:+UseSerialGC",
    "-Djdk.attach.allowAttachSelf=true",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "--add-modules=jdk.incubator.vector",
)
# All on one node that listens on loopback only.
CONFIG = """
node.environment=test
node.id=test
node.bind-ip=127.0.0.1
node.internal-address=127.0.0.1
plugin.dir={plugins}
catalog.config-dir={catalogs}
coordinator=true
node-scheduler.include-coordinator=true
http-server.http.port={port}
discovery.uri=http://127.0.0.1:{port}
query.max-memory-per-node=200MB
memory.heap-headroom-per-node=200MB
"""


class Trino(JavaProcess):
    """`catalog`: properties of the one catalog, which is called lake."""

    def __init__(self, directory: Path, catalog: Mapping[str, str]) -> None:
        super().__init__(directory)
        self._catalog = catalog

    def __enter__(self) -> "Trino":
        java, home = find_java(JAVA_MIN, "Trino"), unpacked()
        catalogs = self.directory / "catalogs"
        catalogs.mkdir(parents=True)
        (catalogs / "lake.properties").write_text("".join(f"{key}={value}\n" for key, value in self._catalog.items()))
        places = {"plugins": home / "plugin", "catalogs": catalogs, "port": self.port}
        config = self.directory / "config.properties"
        config.write_text(CONFIG.format(**places))
        self.start([java, *JVM, f"-Dconfig={config}", "-cp", f"{home}/lib/*", "io.trino.server.TrinoServer"])
        return self

    def started(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/info", timeout=DEADLINE_S) as answer:
                return b'"starting":false' in answer.read().replace(b" ", b"")
        except (urllib.error.URLError, OSError):
            return False


def unpacked() -> Path:
    """Trino's home directory, beside the archives. Missing."""
    jars = jars_of(JAVA / "trino" / "pom.xml")
    done = jars / "unpacked"
    if not done.exists():
        new = jars / "unpacking"
        shutil.rmtree(new, ignore_errors=True)
        (server,) = jars.glob("trino-server-core-*.tar.gz")
        with tarfile.open(server) as archive:
            archive.extractall(new, filter="data")
        (plugin,) = jars.glob("trino-iceberg-*.zip")
        with zipfile.ZipFile(plugin) as files:
            files.extractall(new)
        (home,) = new.glob("trino-server-core-*")
        (iceberg,) = new.glob("trino-iceberg-*")
        iceberg.rename(home / "plugin" / "iceberg")
        new.rename(done)
    (home,) = done.glob("trino-server-core-*")
    return home

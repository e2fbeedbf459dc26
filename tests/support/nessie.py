"""A real Nessie server in memory, with its Iceberg REST catalog: `with Nessie(directory, s3) as nessie: nessie.uri`.

It writes metadata files by itself, and to buckets only: `s3` is a running server, in which it has a folder. Java 21 or
newer.
"""

import urllib.error
import urllib.request
from pathlib import Path

from support.java_server import HEAP, JAVA, JavaProcess, find_java
from support.maven import jars_of
from support.seaweedfs import SeaweedFS
from support.wait import DEADLINE_S

JAVA_MIN = 21
CONFIG = """
quarkus.http.host=127.0.0.1
quarkus.http.port={port}
quarkus.management.host=127.0.0.1
quarkus.management.port=0
quarkus.otel.sdk.disabled=true
nessie.version.store.type=IN_MEMORY
nessie.catalog.default-warehouse={warehouse}
nessie.catalog.warehouses.{warehouse}.location=s3://{folder}
nessie.catalog.service.s3.default-options.endpoint={endpoint}
nessie.catalog.service.s3.default-options.path-style-access=true
nessie.catalog.service.s3.default-options.region={region}
nessie.catalog.service.s3.default-options.access-key=urn:nessie-secret:quarkus:key-of-tests
key-of-tests.name={access_key}
key-of-tests.secret={secret_key}
"""


class Nessie(JavaProcess):
    warehouse = "warehouse"

    def __init__(self, directory: Path, s3: SeaweedFS) -> None:
        super().__init__(directory)
        self.uri = f"http://127.0.0.1:{self.port}/iceberg"
        self._s3 = s3

    def __enter__(self) -> "Nessie":
        java, jars = find_java(JAVA_MIN, "Nessie"), jars_of(JAVA / "nessie" / "pom.xml")
        (jar,) = jars.glob("nessie-quarkus-*.jar")
        config = self.directory / "config" / "application.properties"  # where it looks, seen from its directory
        config.parent.mkdir(parents=True)
        s3 = self._s3
        config.write_text(
            CONFIG.format(
                port=self.port, warehouse=self.warehouse, folder=s3.folder(), endpoint=s3.s3_endpoint,
                region=s3.region, access_key=s3.access_key, secret_key=s3.secret_key,
            )
        )  # fmt: skip
        self.start([java, HEAP, "-jar", str(jar)])
        return self

    def started(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/v1/config", timeout=DEADLINE_S) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

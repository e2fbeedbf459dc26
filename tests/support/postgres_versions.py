"""PostgreSQL of a version other than that of the wheel, from Maven, as `make postgres-all` has the tests run with."""

import os
import platform
import tarfile
import tempfile
import zipfile
from pathlib import Path

from support.maven import CACHE, Missing, jars_of

VERSIONS = {"15": "15.15.0", "16": "16.11.0", "17": "17.7.0", "18": "18.1.0"}
MACHINES = {"x86_64": "amd64", "aarch64": "arm64v8"}
POM = """\
<!-- PostgreSQL {version}, as tests start it (tests/support/postgres.py); nothing of it is a part of StreamLake. -->
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>streamlake.tests</groupId>
  <artifactId>postgres</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>io.zonky.test.postgres</groupId>
      <artifactId>embedded-postgres-binaries-linux-{machine}</artifactId>
      <version>{version}</version>
    </dependency>
  </dependencies>
</project>
"""


def programs_of(version: str) -> Path:
    """The directory with the programs of this version, a key of VERSIONS. Raises Missing."""
    if version not in VERSIONS:
        raise Missing(f"POSTGRES={version}: known are {', '.join(VERSIONS)}")
    programs = _jars(version) / "unpacked"
    if not programs.exists():
        (jar,) = programs.parent.glob("embedded-postgres-binaries-*.jar")
        with tempfile.TemporaryDirectory(dir=programs.parent) as place:
            with zipfile.ZipFile(jar) as archive:
                (packed,) = (name for name in archive.namelist() if name.endswith(".txz"))
                archive.extract(packed, place)
            unpacked = Path(place) / "unpacked"
            with tarfile.open(Path(place) / packed) as archive:
                archive.extractall(unpacked, filter="tar")
            if not programs.exists():  # else another process was faster
                unpacked.rename(programs)
    return programs / "bin"


def _jars(version: str) -> Path:
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise Missing(f"no PostgreSQL {version} for {platform.machine()}")
    pom = CACHE / "poms" / f"postgres_{version}" / "pom.xml"
    pom.parent.mkdir(parents=True, exist_ok=True)
    new = pom.with_name(f"pom-{os.getpid()}.xml")
    new.write_text(POM.format(version=VERSIONS[version], machine=machine))
    new.replace(pom)
    return jars_of(pom)

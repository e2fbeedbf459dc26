"""Jars that Maven fetches once, for tests and benchmarks that run Java programs beside us."""

import shutil
import subprocess
import tempfile
from pathlib import Path

JAVA_MIN = 17
MAVEN_TIMEOUT_S = 600.0


class Missing(Exception):
    """What is wanted cannot run here; the text says why."""


def fetch_jars(pom: Path, jars: Path) -> None:
    """The dependencies of `pom` into the folder `jars`, once for each version of it. Missing if they cannot be had."""
    if not shutil.which("java"):
        raise Missing(f"no `java`: install a Java {JAVA_MIN} runtime")
    if _fetched(pom, jars):
        return
    maven = shutil.which("mvn")
    if not maven:
        raise Missing("no `mvn`: install maven, which fetches the jars")
    jars.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=jars.parent) as place:
        new = Path(place) / "jars"
        command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={new}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=MAVEN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Missing(f"maven took longer than {MAVEN_TIMEOUT_S:.0f} s: can it reach its repository?") from None
        if done.returncode:
            raise Missing(f"maven failed: {(done.stdout + done.stderr).strip()[-500:]}")
        shutil.copy(pom, new / "pom.xml")
        if not _fetched(pom, jars):  # else another process was faster
            shutil.rmtree(jars, ignore_errors=True)
            new.rename(jars)


def _fetched(pom: Path, jars: Path) -> bool:
    marker = jars / "pom.xml"
    return marker.exists() and marker.read_text() == pom.read_text()

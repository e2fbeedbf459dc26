"""Jars from Maven, fetched once for each version of a pom: `jars_of(pom)` is the directory that holds them.

They lie in bench/.cache, by the name of the pom's folder. What can not be had raises Missing, which says what to install.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

CACHE = Path(__file__).parent.parent.parent / "bench" / ".cache"
JAVA_MIN = 17
MAVEN_TIMEOUT_S = 600.0


class Missing(Exception):
    """A Java server cannot run here; the text says why."""


def jars_of(pom: Path) -> Path:
    """The directory with the jars of `pom` and of what these need. Raises Missing."""
    jars = CACHE / pom.parent.name
    if not shutil.which("java"):
        raise Missing(f"no `java`: install a Java {JAVA_MIN} runtime")
    if _fetched(jars, pom):
        return jars
    maven = shutil.which("mvn")
    if not maven:
        raise Missing(f"no `mvn`: install maven, which fetches the jars of {pom.parent.name}")
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as place:
        new = Path(place) / "jars"
        command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={new}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=MAVEN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Missing(f"maven took longer than {MAVEN_TIMEOUT_S:.0f} s: can it reach its repository?") from None
        if done.returncode:
            raise Missing(f"maven failed: {(done.stdout + done.stderr).strip()[-500:]}")
        shutil.copy(pom, new)
        if not _fetched(jars, pom):  # else another process was faster
            shutil.rmtree(jars, ignore_errors=True)
            new.rename(jars)
    return jars


def _fetched(jars: Path, pom: Path) -> bool:
    marker = jars / pom.name
    return marker.exists() and marker.read_text() == pom.read_text()

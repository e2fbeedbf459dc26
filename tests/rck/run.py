"""Run Apache Iceberg's REST Compatibility Kit against a StreamLake server: `make rck`.

The kit runs from its jars (Java 17 and Maven; without them nothing is run, and this says so). `--only NAME` runs one
test. Exit code: 0 if what passes is what should (known_failures.toml), or nothing could be run; else 1.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.maven import Missing, jars_of
from support.server import Server

HERE = Path(__file__).parent
POM = HERE / "pom.xml"
KNOWN_FAILURES = HERE / "known_failures.toml"
KIT = "org.apache.iceberg.rest.RESTCompatibilityKitCatalogTests"
ALL_IN_ONE = re.compile(r"iceberg-open-api-[\d.]+\.jar")
KIT_TIMEOUT_S = 900.0
TOKEN = "t0ken-of-sixteen-letters"  # Java's client gets it by OAuth2, as engines do
OUTCOMES = {"failure": "failed", "error": "failed", "skipped": "not applicable"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="the name of one test")
    only = parser.parse_args().only
    try:
        jars = jars_of(POM)
    except Missing as missing:
        print(f"nothing was run: {missing}")
        return 0
    with tempfile.TemporaryDirectory(prefix="rck-") as place:
        server = Server(Path(place) / "server", f'[http]\ntokens = ["{TOKEN}"]\n').start()
        try:
            outcomes, text = run_kit(f"{server.http}/iceberg", jars, Path(place) / "reports", only)
        finally:
            server.stop()
    if not outcomes:
        print(text[-4000:])
        return 1
    for name, (outcome, why) in sorted(outcomes.items()):
        if outcome == "failed":
            print(f"{name}: {why}")
    known = tomllib.loads(KNOWN_FAILURES.read_text())
    kinds = {name: outcome for name, (outcome, _) in outcomes.items()}
    wrong = verdict(kinds, {name: why for name, why in known.items() if only in (None, name)})
    counts = [f"{list(kinds.values()).count(kind)} {kind}" for kind in ("passed", "failed", "not applicable")]
    print(f"{len(kinds)} tests: {', '.join(counts)}; {len(known)} known failures")
    print("\n".join(wrong))
    return 1 if wrong else 0


def run_kit(uri: str, jars: Path, reports: Path, only: str | None) -> tuple[dict[str, tuple[str, str]], str]:
    """Outcome and reason by test, and what the kit printed."""
    # The jar with everything in it last: it has some of the others' classes too.
    found = sorted(jars.glob("*.jar"), key=lambda jar: (ALL_IN_ONE.fullmatch(jar.name) is not None, jar.name))
    chosen = ["--select-method", f"{KIT}#{only}()"] if only else ["--select-class", KIT]
    command = [
        "java",
        "-Xmx384m",
        "-cp",
        os.pathsep.join(map(str, found)),
        "-Drck.local=false",
        "-Drck.purge-namespaces=false",
        "-Drck.requires-namespace-create=true",
    ]
    command += ["org.junit.platform.console.ConsoleLauncher", "execute", "--disable-banner", "--details=tree"]
    command += ["--disable-ansi-colors", f"--reports-dir={reports}", *chosen]
    environ = {**os.environ, "CATALOG_URI": uri, "CATALOG_WAREHOUSE": "streamlake", "CATALOG_CREDENTIAL": f"me:{TOKEN}"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=KIT_TIMEOUT_S)
    report = reports / "TEST-junit-jupiter.xml"
    text = done.stdout + done.stderr
    return (outcomes_of(report.read_text()) if report.exists() else {}), text


def outcomes_of(report: str) -> dict[str, tuple[str, str]]:
    """From JUnit's XML, by test: passed, failed or not applicable (an assumption of the kit did not hold), and why."""
    found = {}
    for case in ElementTree.fromstring(report).iter("testcase"):
        outcome = "passed", ""
        for part in case:
            if part.tag in OUTCOMES:
                outcome = OUTCOMES[part.tag], " ".join((part.get("message") or part.text or "").split())[:300]
        found[case.attrib["name"].removesuffix("()")] = outcome
    return found


def verdict(outcomes: Mapping[str, str], known: Mapping[str, str]) -> list[str]:
    """What is wrong, one line each."""
    failed = {name for name, outcome in outcomes.items() if outcome == "failed"}
    passed = {name for name, outcome in outcomes.items() if outcome == "passed"}
    wrong = [f"{name} failed, and is not in {KNOWN_FAILURES.name}" for name in sorted(failed - known.keys())]
    wrong += [f"{name} passes: take it off {KNOWN_FAILURES.name}" for name in sorted(passed & known.keys())]
    wrong += [
        f"{name} of {KNOWN_FAILURES.name} is no test of the kit" for name in sorted(known.keys() - outcomes.keys())
    ]
    return wrong


if __name__ == "__main__":
    sys.exit(main())

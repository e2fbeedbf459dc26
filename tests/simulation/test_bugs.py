"""Planted bugs are found: a life that keeps every promise breaks one when the bug is in. `make bugs` counts the lives."""

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from simulation import run
from simulation.bugs import BUGS, found

LIVED_S = 540.0  # far more than a life takes; pytest ends a test soon after
BEGUN_S = 240.0  # no further life is begun later
LIVES_MAX = 60
# A life whose plan suits the bug: it finds it, and is clean without it. What lives find changes with what is simulated,
# to the instant: then other lives of the same plan are tried, 15.1 after 15. Note the one that finds it here: it is
# found sooner then. `make bugs` tells of other plans.
# No seed is known now for: drain-without-fence, hold-outside-trim, revision-out-of-order, fence-ignores-beat,
# lso-before-durable, late-write, marker-of-older-transaction (tests/log/test_transactions.py has the last three),
# map-outlives-ownership (tests/s3stream/compaction/test_compactor.py has it).
FOUND_BY = {
    "exists-is-fenced": "12",
    "no-fsync-before-trim": "40",
    "fence-deleted": "67",
    "ack-after-lease": "79",
    "commit-without-cas": "15.2",
    "zombie-commits-offsets": "13",
    "main-before-dead-letters": "8",
    "progress-not-found-is-zero": "29.37",
    "retry-of-pyiceberg": "3",
    "judge-after-outage": "52",
    "open-ignores-owner": "9",
    "close-at-durable": "15.1",
    "drain-part-discards": "15",
    "release-newer-life": "15",
    "sweep-undrained-epoch": "15",
    "controller-not-fenced": "9.1",
    "duplicate-before-original": "24.1",
    "slot-fenced-by-broker-only": "144.6",
    "revision-gap": "135.14",
    "predicted-epoch": "15",
    "notes-not-committed": "11",
    "map-left-behind": "4",
    "sources-give-all": "5",
}


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    """A process of its own, as `make bugs` has them: what a life does to libraries stays in it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUND_BY)
def test_a_planted_bug_is_found(name: str, elsewhere: ProcessPoolExecutor) -> None:
    began, plan = time.monotonic(), FOUND_BY[name].partition(".")[0]
    seeds = [FOUND_BY[name], *(f"{plan}.{n}" for n in range(1, LIVES_MAX))]
    violations: dict[str, list[str]] = {}
    for seed in seeds:
        if time.monotonic() < began + BEGUN_S:
            lived = elsewhere.submit(run.one, (seed, name, False)).result(LIVED_S)
            if found(BUGS[name], lived["violations"]):
                return
            violations[seed] = lived["violations"]
    pytest.fail(f"none of these lives found it: {violations}")


def test_an_unknown_bug_is_refused() -> None:
    command = [sys.executable, str(Path(run.__file__)), "--seed", "1", "--bug", "x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIVED_S)
    assert done.returncode == 1 and "no planted bug" in done.stderr

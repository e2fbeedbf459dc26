"""Planted bugs are found: a life that keeps every promise breaks one when the bug is in. `make bugs` counts the lives."""

import subprocess
import sys
from pathlib import Path

import pytest
from sim.bugs import BUGS, found

RUN = Path(__file__).parent / "run.py"
# A seed that finds it. The first lives that do, as `make bugs` counts them, change with every change of what is simulated.
FOUND_BY = {
    "exists-is-fenced": 2,
    "no-fsync-before-trim": 36,
    "fence-deleted": 1,
    "main-before-dead-letters": 5,
    "progress-not-found-is-zero": 22,
    "retry-of-pyiceberg": 7,
    "revision-out-of-order": 17,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUND_BY)
def test_a_planted_bug_is_found(name: str) -> None:
    command = [sys.executable, str(RUN), "--seed", str(FOUND_BY[name]), "--bug", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 1, "nothing was found"
    assert found(BUGS[name], done.stdout.splitlines()), done.stdout[-4000:]


def test_an_unknown_bug_is_refused() -> None:
    done = subprocess.run([sys.executable, str(RUN), "--seed", "1", "--bug", "x"], capture_output=True, text=True)
    assert done.returncode == 1 and "no planted bug" in done.stderr

"""Some whole lives: the first seeds, and those that once found something. `make sim SEEDS=2000` is the real thing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LIVED_S = 540.0  # far more than ten lives take; pytest ends a test soon after
KEPT = [line.split()[0] for line in (HERE / "seeds.txt").read_text().splitlines() if line and line[0] != "#"]


def lived(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """A process of its own, as `make sim` starts them: what libraries keep for a process begins anew."""
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONHASHSEED"}
    command = [sys.executable, str(HERE / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIVED_S, env=environ)


@pytest.mark.slow
def test_the_first_lives_keep_every_promise() -> None:
    done = lived("--seeds", "10", "--first", "1")
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.slow
@pytest.mark.parametrize("seed", KEPT)
def test_what_was_found_once_stays_fixed(seed: str) -> None:
    done = lived("--seed", seed)
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["3", "9"])
def test_a_life_is_a_function_of_its_seed(seed: str) -> None:
    """Byte for byte, whatever order sets of texts have in this process."""
    trace = re.search(r"^trace (\w+)$", lived("--seed", seed).stdout, re.MULTILINE)
    code = f"import sys; sys.path.insert(0, {str(HERE.parent)!r}); from simulation.life import run_seed; print(run_seed({seed!r})[0].digest)"
    command = [sys.executable, "-c", code]
    other = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "77"}, timeout=LIVED_S
    )
    assert trace and trace[1] == other.stdout.strip()

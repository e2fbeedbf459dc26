"""The whole demo, as `make demo` runs it."""

import subprocess
import sys

import pytest
from support.wait import DEADLINE_S


@pytest.mark.slow
@pytest.mark.timeout(1200)  # two demos, each a minute or so of work for two cores
def test_demo_runs_again_and_again(tmp_path):
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "streamlake.cli.main", "demo", "--data-dir", str(tmp_path / "demo")],
            capture_output=True,
            text=True,
            timeout=3 * DEADLINE_S,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        assert done.stdout.count("equal") >= 5
        assert "NOT EQUAL" not in done.stdout
        assert "336,776" in done.stdout
        assert "streamlake server" in done.stdout


def test_does_not_empty_a_foreign_directory(tmp_path):
    (tmp_path / "precious").write_text("x")
    done = subprocess.run(
        [sys.executable, "-m", "streamlake.cli.main", "demo", "--data-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 1
    assert (tmp_path / "precious").exists()

"""What CI makes of tests that fail: always, by chance, with their worker, in a fixture, or all at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.wait import DEADLINE_S

pytestmark = pytest.mark.whole

SUITE = Path(__file__).parent.parent / "tools" / "suite.py"
PASSES = "def test_passes():\n    pass\n"
FAILS = "def test_fails():\n    assert False\n"
DIES = "import os\ndef test_dies():\n    os._exit(1)\n"
NOT_TWICE = "    from pathlib import Path\n    tried = Path(__file__).with_suffix('.tried')\n    first = not tried.exists()\n    tried.touch()\n"
BY_CHANCE = f"import pytest\n@pytest.mark.parametrize('x', ['a b', 'c::d[e]'])\ndef test_by_chance(x):\n{NOT_TWICE}    assert not first\n"
DIES_ONCE = f"import os\ndef test_dies_once():\n{NOT_TWICE}    if first: os._exit(1)\n"
HANGS_ONCE = (
    f"import time, pytest\n@pytest.mark.timeout(1)\ndef test_hangs_once():\n{NOT_TWICE}    if first: time.sleep(300)\n"
)
FIXTURE = f"import pytest\n@pytest.fixture\ndef given():\n    yield\n{NOT_TWICE}    assert not first\ndef test_given(given):\n    pass\n"
SKIPPED = "import pytest\n@pytest.mark.skip\ndef test_skipped():\n    pass\n"
BROKEN = "import there_is_no_such_module\n"


def run(folder: Path, *files: str, workers: int = 1, options: tuple[str, ...] = ()) -> tuple[int, list[str]]:
    """Exit code, and the lines of what was printed after the first try."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    for number, text in enumerate(files):
        (folder / f"test_{number}.py").write_text(text)
    command = [sys.executable, str(SUITE), "-q", "-n", str(workers), *options]
    # Our own plugins take most of the time that pytest takes to start, which it does some twenty times here.
    environ = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist.plugin,pytest_timeout"}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=DEADLINE_S)
    return done.returncode, done.stdout.splitlines()


def test_all_pass(tmp_path: Path) -> None:
    code, lines = run(tmp_path, PASSES, SKIPPED)
    assert code == 0
    assert lines[-1].startswith("1 passed, 1 skipped in ")


def test_what_passes_alone_is_flaky_and_fails_nothing(tmp_path: Path) -> None:
    code, lines = run(tmp_path, PASSES, BY_CHANCE, SKIPPED, HANGS_ONCE)
    assert code == 0, lines
    # The second of the two that share a mark of what was tried has passed at once.
    assert lines[-3].startswith("4 passed, 1 skipped in ")
    assert sorted(lines[-2:])[1] == "flaky: test_3.py::test_hangs_once"
    assert "flaky: test_1.py::test_by_chance[" in lines[-2] + lines[-1]


def test_what_fails_alone_too_fails_the_run(tmp_path: Path) -> None:
    code, lines = run(tmp_path, PASSES, FAILS, FIXTURE)
    assert code == 1
    assert lines[-2].startswith("1 failed, 2 passed in ")
    assert lines[-1] == "flaky: test_2.py::test_given"


def test_a_test_that_takes_its_worker_along(tmp_path: Path) -> None:
    code, lines = run(tmp_path, PASSES, DIES_ONCE)
    assert (code, lines[-1]) == (0, "flaky: test_1.py::test_dies_once")
    code, lines = run(tmp_path, PASSES, DIES)
    assert code == 1
    assert lines[-1].startswith("1 failed, 1 passed in ")


def test_what_is_skipped_alone_has_not_passed(tmp_path: Path) -> None:
    skips = f"import pytest\ndef test_skips():\n{NOT_TWICE}    assert not first\n    pytest.skip()\n"
    code, lines = run(tmp_path, PASSES, skips)
    assert code == 1, lines


def test_tests_that_were_not_run_have_not_passed(tmp_path: Path) -> None:
    """Workers that die are made anew only so often; what waited for them is left out."""
    dies = f"import os\ndef test_dies():\n{NOT_TWICE}    if first: os._exit(1)\ndef test_fails():\n    assert False\n"
    code, lines = run(tmp_path, *[dies] * 4, workers=2, options=("--dist", "loadfile", "--max-worker-restart=1"))
    assert code == 1, lines
    assert not any("flaky" in line for line in lines)


def test_many_failures_are_no_chance(tmp_path: Path) -> None:
    many = f"import pytest\n@pytest.mark.parametrize('x', range(21))\n{FAILS.replace('()', '(x)')}"
    code, lines = run(tmp_path, PASSES, many)
    assert code == 1
    assert lines[-1].startswith("21 failed, 1 passed in ")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_cannot_be_read_is_no_chance(tmp_path: Path, workers: int) -> None:
    code, lines = run(tmp_path, PASSES, BROKEN, workers=workers)
    assert code != 0, lines
    assert not any("once more" in line or "flaky" in line for line in lines)


def test_no_tests_are_no_success(tmp_path: Path) -> None:
    assert run(tmp_path)[0] == pytest.ExitCode.NO_TESTS_COLLECTED

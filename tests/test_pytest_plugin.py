"""The fixture `streamlake`, as somebody who installed StreamLake meets it: found by pytest, by its entry point."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.wait import DEADLINE_S

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.whole
ROOT = Path(__file__).parents[1]


@pytest.fixture
def installed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.Pytester:
    """A test run in an environment with this checkout's entry points, whatever was installed when."""
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=DEADLINE_S, capture_output=True)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    return pytester


def test_the_fixture_is_one_real_server_for_the_run(installed):
    installed.makepyfile(
        f"""
        from confluent_kafka import Consumer, Producer

        seen = []

        def test_produce(streamlake):
            producer = Producer({{"bootstrap.servers": streamlake.bootstrap}})
            producer.produce("orders", b"hello")
            assert producer.flush({DEADLINE_S}) == 0
            seen.append(streamlake)

        def test_consume(streamlake):
            assert seen == [streamlake]
            consumer = Consumer(
                {{"bootstrap.servers": streamlake.bootstrap, "group.id": "g", "auto.offset.reset": "earliest"}}
            )
            consumer.subscribe(["orders"])
            assert consumer.poll({DEADLINE_S}).value() == b"hello"
            consumer.close()
            print("PID", streamlake._server.pid)
        """
    )
    done = installed.runpytest_subprocess("-q", "-s")
    done.assert_outcomes(passed=2)
    (line,) = [line for line in done.outlines if "PID" in line]
    assert not Path("/proc", line.split()[-1]).exists()


def test_it_is_described_where_people_look(installed):
    done = installed.runpytest_subprocess("--fixtures", "-q")
    done.stdout.fnmatch_lines(["streamlake [[]session scope[]] -- *", "*A StreamLake server in a temporary directory*"])


def test_without_its_use_nothing_is_imported(installed):
    installed.makepyfile(
        """
        import sys

        def test_one():
            print("MODULES", *(name for name in sys.modules if name.startswith("streamlake")))
        """
    )
    done = installed.runpytest_subprocess("-q", "-s")
    done.assert_outcomes(passed=1)
    (line,) = [line for line in done.outlines if "MODULES" in line]
    assert sorted(line.partition("MODULES ")[2].rstrip(".").split()) == ["streamlake", "streamlake.pytest_plugin"]


def test_it_can_be_switched_off(installed):
    assert "streamlake [" not in installed.runpytest_subprocess("-p", "no:streamlake", "--fixtures", "-q").stdout.str()

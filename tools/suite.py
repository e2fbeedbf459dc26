"""pytest, and what failed once more, each test alone in a process of its own: what passes then is printed as flaky.

`python tools/suite.py ARGUMENTS-OF-PYTEST`, in the directory where pytest would be started. A flaky test does not fail the run: it is named at the end,
and mended next. Exits with 0 if every test has passed at least once, else with pytest's code. Broken collections, interrupts and many failures
are no chance: nothing is run again then.
"""

import os
import re
import subprocess
import sys
import time

import pytest

AGAIN_MAX = 20


class Outcomes:
    """By the names of tests; failures of fixtures and of workers that died are failures of their test."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.failed: list[str] = []
        self.skipped = 0
        self.not_run: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.not_run.update(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self.not_run.update(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.not_run.discard(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        stats = terminalreporter.stats
        self.failed = list(dict.fromkeys(r.nodeid for kind in ("failed", "error") for r in stats.get(kind, ())))
        self.passed = {report.nodeid for report in stats.get("passed", ())} - set(self.failed)
        self.skipped = len(stats.get("skipped", ()))


def main(arguments: list[str]) -> int:
    started = time.monotonic()
    sys.path[0] = os.getcwd()  # as `python -m pytest` has it
    outcomes = Outcomes()
    code = int(pytest.main(arguments, plugins=[outcomes]))
    are_tests = all("::" in name for name in outcomes.failed)  # xdist gives files that cannot be read the same code
    if code != pytest.ExitCode.TESTS_FAILED or not are_tests or not 0 < len(outcomes.failed) <= AGAIN_MAX:
        return code
    if outcomes.not_run:  # too many workers died
        print(f"\n{len(outcomes.not_run)} tests were not run")
        return code
    print(f"\n{len(outcomes.failed)} failed: once more, alone")
    sys.stdout.flush()
    flaky = [name for name in outcomes.failed if passes_alone(name)]
    counts = {
        "failed": len(outcomes.failed) - len(flaky),
        "passed": len(outcomes.passed) + len(flaky),
        "skipped": outcomes.skipped,
    }
    said = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    print(f"\nWith what passed alone:\n{said} in {time.monotonic() - started:.2f}s")
    for name in flaky:
        print(f"flaky: {name}")
    return code if counts["failed"] else 0


def passes_alone(name: str) -> bool:
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", name], stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    return done.returncode == 0 and re.search(r"^1 passed", done.stdout, re.MULTILINE) is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""pytest, and what failed once more, each test alone in a process of its own: what passes then is printed as flaky.

`python tools/suite.py ARGUMENTS-OF-PYTEST`, in the directory where pytest would be started. A flaky test does not fail the run: it is named at the end,
and mended next. Exits with 0 if every test has passed at least once, else with pytest's code. Broken collections, interrupts and many failures
are no chance: nothing is run again then.
"""

import os
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
    return subprocess.run([sys.executable, "-m", "pytest", "-q", name]).returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

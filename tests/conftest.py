"""Shared by all tests: `support` and `contracts` are importable, and helpers start real servers on free ports."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import HealthCheck, settings

# Machines are busy: how long an example takes proves nothing.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")

# Pretty tracebacks take longer to draw than most tests take, even where nobody sees them.
plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from support.seaweedfs import SeaweedFS


TESTS = Path(__file__).parent
WHOLE = {
    "bench",
    "cli",
    "clients",
    "differ",
    "engines",
    "faults",
    "lake",
    "tables",
}  # folders whose tests run whole servers or commands


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: what is left at the end is short, so no process waits long for another's last file."""
    for item in items:
        if item.path.relative_to(TESTS).parts[0] in WHOLE:
            item.add_marker("whole")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[SeaweedFS]":
    """A real S3 and Iceberg REST server, one for the whole run."""
    from support.seaweedfs import SeaweedFS

    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server

"""Each test that asks for `kind` runs for every kind of catalog; the end of the run prints the table kind × behaviour.

`make test` runs the kinds that start in seconds, `make catalogs-all` all of them (CATALOGS=hive,glue: those), and writes
the table to the file that CATALOG_TABLE names.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.catalog_kinds import CatalogKind, RunningCatalog, chosen
from support.catalog_table import BEHAVIOUR, KIND, SAW, BehaviourTable
from support.maven import Missing

from streamlake.table.commit import machine

results = BehaviourTable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of a kind one after the other: its server is started once, and one server runs at a time."""
    order = [kind.title for kind in chosen()]
    places = [place for place, item in enumerate(items) if kind_of(item) is not None]
    of_kinds = sorted((items[place] for place in places), key=lambda item: order.index(kind_of(item).title))  # type: ignore[union-attr]
    for place, item in zip(places, of_kinds, strict=True):
        items[place] = item


def kind_of(item: pytest.Item) -> CatalogKind | None:
    callspec = getattr(item, "callspec", None)
    found = callspec.params.get("kind") if callspec else None
    return found if isinstance(found, CatalogKind) else None


@pytest.fixture(params=chosen(), ids=lambda kind: kind.title)
def kind(request: pytest.FixtureRequest) -> CatalogKind:
    found: CatalogKind = request.param
    return found


class Servers:
    """One at a time: that of the kind whose tests run."""

    def __init__(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        self._tmp_path_factory = tmp_path_factory
        self._started = ExitStack()
        self._kind: CatalogKind | None = None
        self._running: RunningCatalog | None = None
        self._failed: Exception | None = None

    def of(self, kind: CatalogKind) -> RunningCatalog:
        if kind is not self._kind:
            self.stop()
            self._kind = kind
            try:
                directory = self._tmp_path_factory.mktemp("catalog")
                self._running = self._started.enter_context(kind.serve(directory))
            except Exception as error:  # each test of the kind says so
                self._failed = error
        if isinstance(self._failed, Missing):
            pytest.skip(str(self._failed))
        if self._running is None:
            raise RuntimeError(f"the server of {kind.title} did not start") from self._failed
        return self._running

    def stop(self) -> None:
        self._running = self._failed = None
        self._started.close()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    found = Servers(tmp_path_factory)
    yield found
    found.stop()


@pytest.fixture
def running(kind: CatalogKind, servers: Servers) -> RunningCatalog:
    return servers.of(kind)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DELAY_FIRST_S", 0.0)


@pytest.fixture(autouse=True)
def in_the_table(request: pytest.FixtureRequest) -> None:
    """The cell of a test: its kind, and the row: the name of the test, with what else it is given."""
    kind = kind_of(request.node)
    if kind is not None:
        others = [part for part in request.node.callspec.id.replace(kind.title, "").split("-") if part]
        words = request.node.originalname.removeprefix("test_").replace("_", " ")
        request.node.user_properties += [(KIND, kind.title), (BEHAVIOUR, ": ".join([words, *others]))]


@pytest.fixture
def saw(record_property: object) -> object:
    """`saw("folded")`: what the cell says instead of ok."""
    return lambda text: record_property(SAW, text)  # type: ignore[operator]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    results.add(report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if os.environ.get("CATALOGS"):
        terminalreporter.section("catalog × behaviour")
        terminalreporter.write(results.markdown())
    if file := os.environ.get("CATALOG_TABLE"):
        Path(file).write_text(results.page())

from types import SimpleNamespace
from typing import Any

from support.catalog_table import BEHAVIOUR, KIND, SAW, BehaviourTable


def report(kind: str, behaviour: str, outcome: str = "passed", when: str = "call", saw: str | None = None) -> Any:
    properties = [(KIND, kind), (BEHAVIOUR, behaviour), *([(SAW, saw)] if saw else [])]
    return SimpleNamespace(
        user_properties=properties, failed=outcome == "failed", skipped=outcome == "skipped", when=when
    )


def test_cells_are_what_the_tests_reported() -> None:
    table = BehaviourTable()
    for each in (
        report("A", "append", when="setup"),
        report("A", "append"),
        report("A", "append", "failed", when="teardown"),
        report("B", "append", "skipped", when="setup"),
        report("A", "names: dot"),
        report("A", "views"),
        report("B", "names: dash", saw="refused"),
        SimpleNamespace(user_properties=[]),
    ):
        table.add(each)
    assert table.markdown().splitlines() == [
        "|  | A | B |",
        "| --- | --- | --- |",
        "| append | **FAILED** | not run |",
        "| names: dot | ok | – |",
        "| names: dash | – | refused |",
        "| views | ok | – |",
    ]
    assert table.markdown() in table.page()

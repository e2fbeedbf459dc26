"""Each engine answers each query from a real server's tables as what was produced says, or as differences.toml says."""

import pytest
from engines.differences import FILE, OK, REFUSED, WRONG, by_cell, differences
from engines.engine import Engine
from engines.kinds import EngineKind, chosen
from engines.queries import QUERIES, Query, ordered

LISTED = differences()
CELLS = by_cell(LISTED)


@pytest.mark.parametrize("kind", chosen(), ids=lambda kind: kind.title, scope="session")
@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.title)
def test_the_answer_is_what_was_produced(engine: Engine, kind: EngineKind, query: Query) -> None:
    outcome, what = ask(engine, query)
    place = CELLS.get((kind.title, query.title))
    listed = OK if place is None else LISTED[place].outcome
    if outcome != listed and outcome == OK:
        raise AssertionError(f"{kind.title} answers {query.title!r} rightly: take it off {FILE.name}")
    assert outcome == listed, f"{outcome}, but {FILE.name} says {listed}: {what}"


def ask(engine: Engine, query: Query) -> tuple[str, str]:
    """The first ask that goes wrong, and how."""
    for one in query.asks:
        expected = one.expected()
        try:
            answer = ordered(engine.answer(one))
        except Exception as error:
            return REFUSED, f"{one.where}: {type(error).__name__}: {error}"
        if answer != expected:
            missing = [row for row in expected if row not in answer]
            return (
                WRONG,
                f"{one.where}: {len(answer)} rows, missing {missing}, instead {[r for r in answer if r not in expected]}",
            )
    return OK, ""

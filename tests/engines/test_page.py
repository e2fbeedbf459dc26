from engines.differences import OK, by_cell, differences
from engines.kinds import ENGINES
from engines.page import PAGE, written
from engines.queries import QUERIES


def test_the_guide_has_the_results() -> None:
    page = PAGE.read_text()
    assert page == written(page), "run `make engines-all`, or python tests/engines/page.py if its cells are proved"


def test_differences_are_of_engines_and_queries_that_there_are() -> None:
    listed = differences()
    engines, queries = {kind.title for kind in ENGINES}, {query.title for query in QUERIES}
    for engine, query in by_cell(listed):
        assert engine in engines and query in queries, f"there is no {engine} × {query}"
    assert OK not in {difference.outcome for difference in listed}

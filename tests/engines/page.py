"""The table of results in docs/guides/engines.md, from what the tests hold engines to.

`python tests/engines/page.py` writes it there; `make engines-all` does so when every cell was proved.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from engines.differences import by_cell, differences
from engines.kinds import ENGINES
from engines.queries import QUERIES

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "engines.md"
BEGIN = "<!-- The rest of this page is written by `make engines-all`. -->\n"


def results() -> str:
    listed = differences()
    cells = by_cell(listed)
    titles = [kind.title for kind in ENGINES]
    lines = [["", *titles], ["---"] * (len(titles) + 1)]
    for query in QUERIES:
        places = [cells.get((title, query.title)) for title in titles]
        shown = ["ok" if place is None else f"{listed[place].outcome} ({place + 1})" for place in places]
        lines.append([query.title, *shown])
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    notes = "".join(f"{place}. {difference.why}\n" for place, difference in enumerate(listed, 1))
    return f"{BEGIN}\n{table}\n{notes}"


def written(page: str) -> str:
    """The page with today's results."""
    text, found, _ = page.partition(BEGIN)
    assert found, f"{PAGE} has no line {BEGIN}"
    return text + results()


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))

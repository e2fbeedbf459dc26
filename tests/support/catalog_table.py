"""The table catalog × behaviour, from the reports of the tests that ran: its cells are what the tests proved."""

from typing import Any

KIND, BEHAVIOUR, SAW = "catalog kind", "catalog behaviour", "saw"

PAGE = """# Catalog × behaviour

`make catalogs-all` wrote this page: each cell is a test that ran against a real server. `ok`: it holds. Other words say
what the catalog does instead. `–`: that cannot happen there.

{table}"""


class BehaviourTable:
    def __init__(self) -> None:
        self._kinds: list[str] = []
        self._rows: dict[str, dict[str, str]] = {}

    def add(self, report: Any) -> None:
        """A pytest report; those of tests that know no kind are not counted."""
        found = dict(report.user_properties)
        if BEHAVIOUR not in found:
            return
        if found[KIND] not in self._kinds:
            self._kinds.append(found[KIND])
        cells = self._rows.setdefault(found[BEHAVIOUR], {})
        if report.failed:
            cells[found[KIND]] = "**FAILED**"
        elif report.skipped:
            cells[found[KIND]] = "not run"
        elif report.when == "call":
            cells.setdefault(found[KIND], found.get(SAW, "ok"))

    def markdown(self) -> str:
        titles = list(dict.fromkeys(row.partition(":")[0] for row in self._rows))
        rows = sorted(self._rows, key=lambda row: titles.index(row.partition(":")[0]))
        lines = [["", *self._kinds], ["---"] * (len(self._kinds) + 1)]
        lines += [[row, *(self._rows[row].get(kind, "–") for kind in self._kinds)] for row in rows]
        return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

    def page(self) -> str:
        return PAGE.format(table=self.markdown())

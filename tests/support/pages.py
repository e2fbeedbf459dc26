"""The tables of a page of docs/guides, for tests that compare them with the code."""

import re
from pathlib import Path

GUIDES = Path(__file__).parents[2] / "docs" / "guides"


def rows(page: str, heading: str = "") -> list[dict[str, str]]:
    """All rows of the tables under a heading (or on the page), each by the names of its columns."""
    text = (GUIDES / page).read_text()
    if heading:
        (text,) = re.findall(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    found = []
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        head, rule, *body = [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()]
        assert all(re.fullmatch("-+", cell) for cell in rule), f"{page}: no table: {table}"
        found += [dict(zip(head, cells, strict=True)) for cells in body]
    return found


def code(cell: str) -> str | None:
    """What is in backticks, if nothing else is in the cell."""
    text = cell.removeprefix("`").removesuffix("`")
    return text if len(cell) == len(text) + 2 and "`" not in text else None

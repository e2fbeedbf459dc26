"""What may come next in a statement: names of tables where one is expected, else columns, keywords and functions."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from streamlake.lake.names import DEFAULT_NAMESPACE, Name, quoted

TABLES_NAMED_MAX = 8  # whose columns are offered
_NAME = r'(?:"(?:[^"]|"")*"|\w+)'
_PLAIN = re.compile(r"[A-Za-z_]\w*\Z")
_UNFINISHED = re.compile(r'(?:(?:"(?:[^"]|"")*"|\w+)\.)*(?:"[^"]*|\w*)\Z')  # the name at the cursor
_BEFORE_TABLE = re.compile(
    r"\b(?:from|join|into|update|table|view|describe|summarize|show)\s+(?:[^()\s]+\s*,\s*)*\Z", re.IGNORECASE
)
_NAMED = re.compile(rf"\b(?:from|join|into|update|describe|summarize)\s+({_NAME}(?:\.{_NAME})*)", re.IGNORECASE)


class Words(NamedTuple):
    """What does not depend on the tables: DuckDB's own."""

    keywords: Sequence[str]
    reserved: frozenset[str]
    functions: Sequence[str]


class Candidate(NamedTuple):
    text: str
    kind: str


def candidates(
    before: str, after: str, tables: Sequence[Name], columns: Callable[[str], Sequence[str]], words: Words
) -> tuple[str, list[Candidate]]:
    """The unfinished word before the cursor, and what may stand in its place. `columns` of a table as it is written."""
    match = _UNFINISHED.search(before)
    word = match.group() if match else ""
    if _BEFORE_TABLE.search(before[: len(before) - len(word)]):
        return word, _matching(word, (Candidate(written(name, words), "table") for name in tables))
    qualifier, dot, start = word.rpartition(".")
    named = list(dict.fromkeys(_NAMED.findall(f"{before} {after}")))[:TABLES_NAMED_MAX]
    names = dict.fromkeys(column for table in named for column in columns(table))
    found = [Candidate(f"{qualifier}{dot}{_as_needed(name, words)}", "column") for name in names]
    if not dot:
        lower = bool(start) and start == start.lower()
        found += [Candidate(k.lower() if lower else k.upper(), "keyword") for k in words.keywords if start]
        found += [Candidate(f"{name}(", "function") for name in words.functions if start]
    return word, _matching(word, found)


def written(name: Name, words: Words) -> str:
    """As a statement may write it."""
    table = _as_needed(name.table, words)
    return table if name.namespace == DEFAULT_NAMESPACE else f"{_as_needed(name.namespace, words)}.{table}"


def _as_needed(part: str, words: Words) -> str:
    return part if _PLAIN.match(part) and part.lower() not in words.reserved else quoted(part)


def _matching(word: str, found: Iterable[Candidate]) -> list[Candidate]:
    """Quotes need not be typed."""
    bare = word.replace('"', "").lower()
    fitting = [candidate for candidate in found if candidate.text.replace('"', "").lower().startswith(bare)]
    return list({candidate.text: candidate for candidate in reversed(fitting)}.values())[::-1]  # the first of a text

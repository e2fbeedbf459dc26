"""What engines are known to get wrong: differences.toml."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent / "differences.toml"
OK, WRONG, REFUSED = "ok", "wrong", "refused"


@dataclass(frozen=True)
class Difference:
    """`outcome`: the engine answers with other rows or values, or with an error, to one of the query's asks at least."""

    engines: tuple[str, ...]
    queries: tuple[str, ...]
    outcome: str
    why: str


def differences() -> list[Difference]:
    listed = tomllib.loads(FILE.read_text())["difference"]
    return [Difference(tuple(d["engines"]), tuple(d["queries"]), d["outcome"], d["why"]) for d in listed]


def by_cell(listed: list[Difference]) -> dict[tuple[str, str], int]:
    """The place of each (engine, query) in the list."""
    found: dict[tuple[str, str], int] = {}
    for place, difference in enumerate(listed):
        for engine in difference.engines:
            for query in difference.queries:
                assert (engine, query) not in found, f"{FILE.name} has {engine} × {query} twice"
                found[engine, query] = place
    return found

"""Two brokers' answers side by side, and the list of what may differ (intended.toml)."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

INTENDED = Path(__file__).parent / "intended.toml"
ABSENT = "absent"


@dataclass(frozen=True)
class Intended:
    """Labels and fields are patterns (`*`). `kafka` and `ours` are what each of them says there, if always the same."""

    request: str
    field: str
    reason: str
    kafka: Any = None
    ours: Any = None

    def covers(self, label: str, difference: "Difference") -> bool:
        return (
            fnmatchcase(label, self.request)
            and fnmatchcase(difference.field, self.field)
            and (self.kafka is None or self.kafka == difference.kafka)
            and (self.ours is None or self.ours == difference.ours)
        )


@dataclass(frozen=True)
class Difference:
    field: str
    kafka: Any
    ours: Any

    def __str__(self) -> str:
        return f"{self.field}: Kafka {self.kafka!r}, StreamLake {self.ours!r}"


@dataclass
class Outcome:
    requests: int = 0
    same: int = 0
    intended: int = 0
    unexpected: dict[str, list[Difference]] = field(default_factory=dict)
    stale: list[Intended] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.unexpected and not self.stale

    def __str__(self) -> str:
        return (
            f"{self.requests} requests, {self.same} same, {self.intended} intended differences, "
            f"{len(self.unexpected)} unexpected, {len(self.stale)} intended that do not differ"
        )


def read_intended(path: Path = INTENDED) -> list[Intended]:
    return [Intended(**entry) for entry in tomllib.loads(path.read_text())["difference"]]


def compare(kafka: Mapping[str, Any], ours: Mapping[str, Any], intended: list[Intended]) -> Outcome:
    """`kafka` and `ours` are answers by label. An intended difference that is none, of all these, is stale."""
    outcome = Outcome()
    used: set[Intended] = set()
    for label in dict.fromkeys([*kafka, *ours]):
        outcome.requests += 1
        unexpected = []
        differences = list(differing(kafka.get(label, ABSENT), ours.get(label, ABSENT)))
        for difference in differences:
            covering = {entry for entry in intended if entry.covers(label, difference)}
            used |= covering
            if not covering:
                unexpected.append(difference)
        if unexpected:
            outcome.unexpected[label] = unexpected
        elif differences:
            outcome.intended += 1
        else:
            outcome.same += 1
    outcome.stale = [entry for entry in intended if entry not in used]
    return outcome


def differing(kafka: Any, ours: Any, at: str = "") -> Iterator[Difference]:
    if isinstance(kafka, Mapping) and isinstance(ours, Mapping):
        for name in dict.fromkeys([*kafka, *ours]):
            yield from differing(kafka.get(name, ABSENT), ours.get(name, ABSENT), f"{at}.{name}" if at else name)
    elif kafka != ours or type(kafka) is not type(ours):
        yield Difference(at or "answer", kafka, ours)

"""What producers put into records. A source draws one record after the other; each says what a table must make of it."""

import random
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from streamlake.record.decode import Headers


@dataclass(frozen=True)
class Row:
    """A table must hold these columns for the record; columns that are absent here are null or not there."""

    columns: dict[str, object]


@dataclass(frozen=True)
class Dead:
    """A table cannot hold the record: it must be a dead letter."""

    why: str


class Undecided(Row):
    """A table may hold the record as a row or as a dead letter, as its schema comes and goes: never as both."""


class Drawn(NamedTuple):
    value: bytes | None
    headers: Headers = ()
    meaning: Row | Dead | None = None  # None: it goes to no table that anybody compares


class Source(Protocol):
    def draw(self, key: bytes) -> Drawn: ...


class AnyValues:
    """Bytes of any length, tombstones and headers now and then."""

    def __init__(self, rng: random.Random, value_bytes_max: int = 300) -> None:
        self._rng = rng
        self._value_bytes_max = value_bytes_max

    def draw(self, key: bytes) -> Drawn:
        kind = self._rng.random()
        if kind < 0.03:
            return Drawn(None)
        value = (b"value of " + key).ljust(self._rng.randrange(self._value_bytes_max), b".")
        if kind < 0.1:
            return Drawn(value, (("trace", key), ("trace", None)))
        return Drawn(value)

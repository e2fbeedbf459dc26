"""Values for table topics, and users of the schema registry.

`AvroValues` makes records in Confluent's wire format (a zero byte, the schema's id, Avro) by schemas that evolve as
the run goes on, and now and then one that no table can hold, which must become a dead letter. It is a Source for any
producer; a `TableFeeder` is an idempotent producer with it. The registry is an async function, so that a real server
is asked over HTTP and a simulated one directly.
"""

import io
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import fastavro
from simulation.actors.client import World
from simulation.actors.producers import IdempotentProducer
from simulation.actors.values import Dead, Drawn, Row
from simulation.checks.ledger import Violation

from streamlake.core.errors import StreamLakeError

Register = Callable[[str, str], Awaitable[int]]  # (subject, schema text) → id; StreamLakeError if it failed
Lookup = Callable[[int], Awaitable[str]]  # id → schema text; StreamLakeError

NOBODY_REGISTERED = 2**31 - 1  # a schema id that no registry gets to
RETRY_S = 0.5

# Each one can read what the one before it wrote, and is read by it: an optional field more.
_FIELDS: tuple[dict[str, Any], ...] = (
    {"name": "n", "type": "long"},
    {"name": "note", "type": ["null", "string"], "default": None},
    {"name": "ratio", "type": ["null", "double"], "default": None},
    {"name": "flag", "type": ["null", "boolean"], "default": None},
)
GENERATIONS = len(_FIELDS)


def schema_text(generation: int, name: str = "Row") -> str:
    """The schema with 1 + `generation` fields."""
    return json.dumps({"type": "record", "name": name, "fields": _FIELDS[: generation + 1]})


class AvroValues:
    """`evolve_share` and `bad_share`: how often, per record, the schema moves on, or the value is broken.

    `generation` k may be drawn as soon as `ready` says that its schema is registered, and older ones always."""

    def __init__(
        self, rng: random.Random, subject: str, *, evolve_share: float = 0.01, bad_share: float = 0.05
    ) -> None:
        self.subject = subject
        self.ids: list[int] = []  # of the schemas registered so far, by generation
        self._rng = rng
        self._evolve_share = evolve_share
        self._bad_share = bad_share
        self._generation = 0
        self._numbers = 0
        self._parsed = [fastavro.parse_schema(json.loads(schema_text(g))) for g in range(GENERATIONS)]

    async def register_all(self, world: World, register: Register) -> None:
        """All generations, in order, trying again until the run ends. Call before the first `draw`."""
        while len(self.ids) < GENERATIONS and not world.stop.is_set():
            try:
                self.ids.append(await register(self.subject, schema_text(len(self.ids))))
            except StreamLakeError:
                await world.pause(RETRY_S)

    def draw(self, key: bytes) -> Drawn:
        rng = self._rng
        if rng.random() < self._evolve_share:
            self._generation = min(self._generation + 1, len(self.ids) - 1)
        if rng.random() < self._bad_share:
            return self._bad(key)
        generation = self._generation if rng.random() < 0.9 else rng.randint(0, self._generation)
        columns = self._columns(generation)
        return Drawn(_framed(self.ids[generation], self._encoded(generation, columns)), (), Row(columns))

    def _columns(self, generation: int) -> dict[str, object]:
        self._numbers += 1
        rng = self._rng
        columns: dict[str, object] = {"n": self._numbers}
        choices: tuple[tuple[str, Sequence[object]], ...] = (
            ("note", (None, "", "grüß dich", "x" * 40)),
            ("ratio", (None, 0.5, -1e300)),
            ("flag", (None, True, False)),
        )
        for name, values in choices[:generation]:
            columns[name] = rng.choice(values)
        return columns

    def _encoded(self, generation: int, columns: dict[str, object]) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self._parsed[generation], columns)
        return out.getvalue()

    def _bad(self, key: bytes) -> Drawn:
        match self._rng.randrange(3):
            case 0:
                return Drawn(b"no Confluent header: " + key, (), Dead("no magic byte"))
            case 1:
                return Drawn(_framed(NOBODY_REGISTERED, b"\2"), (), Dead("unknown schema"))
            case _:
                return Drawn(_framed(self.ids[0], b""), (), Dead("cut Avro"))


def _framed(schema_id: int, avro: bytes) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big") + avro


class TableFeeder(IdempotentProducer):
    """Feeds table topics with Avro values, whose schemas are registered already."""

    def __init__(
        self, world: World, name: str, rng: random.Random, topics: Sequence[str], values: AvroValues, **options: Any
    ) -> None:
        super().__init__(world, name, rng, topics, source=values, **options)


class RegistryUser:
    """Registers schemas of some subjects, again and again, and looks them up. Promised, and checked: a schema has one
    id, an id one schema, for ever."""

    def __init__(
        self, world: World, rng: random.Random, subjects: Sequence[str], register: Register, lookup: Lookup,
        *, pace_s: float = 1.0,
    ) -> None:  # fmt: skip
        self._world = world
        self._rng = rng
        self._subjects = subjects
        self._register = register
        self._lookup = lookup
        self._pace_s = pace_s

    async def run(self) -> None:
        while not self._world.stop.is_set():
            try:
                await self._once()
            except StreamLakeError:
                pass  # not now: nothing is promised of it
            await self._world.pause(self._rng.uniform(0, self._pace_s))

    async def _once(self) -> None:
        subject = self._rng.choice(self._subjects)
        text = schema_text(self._rng.randrange(GENERATIONS), f"Row_{subject.replace('-', '_')}")
        schema_id = await self._register(subject, text)
        self._world.ledger.registered(schema_id, text)
        found = await self._lookup(schema_id)
        if json.loads(found) != json.loads(text):
            raise Violation(f"schema {schema_id} was registered as {text}, and is now {found}")

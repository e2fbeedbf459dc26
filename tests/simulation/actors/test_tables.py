"""Values for tables say truly what they are; schema ids are watched."""

import io
import json
import random

import fastavro
import pytest
from simulation.actors.client import World
from simulation.actors.tables import GENERATIONS, AvroValues, RegistryUser, TableFeeder, schema_text
from simulation.actors.values import Dead, Row
from simulation.checks.history import Violation
from simulation.checks.outcome import check_all
from simulation.real import new_topic, run_on, run_until, world_of
from support.server import Server

from streamlake.core.errors import NotFound, Unavailable
from streamlake.registry.avro.schema import parse_schema


class Registry:
    """In memory; `failures` requests fail first."""

    def __init__(self, failures: int = 0) -> None:
        self.texts: list[str] = []
        self.failures = failures

    async def register(self, subject: str, text: str) -> int:
        if self.failures:
            self.failures -= 1
            raise Unavailable("not now")
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1

    async def lookup(self, schema_id: int) -> str:
        if not 1 <= schema_id <= len(self.texts):
            raise NotFound("no such schema")
        return self.texts[schema_id - 1]


async def test_values_are_what_they_mean(server: Server) -> None:
    world, registry = world_of(server), Registry()
    values = AvroValues(random.Random(1), "s", evolve_share=0.05, bad_share=0.2)
    await values.register_all(world, registry.register)
    schemas = {i + 1: fastavro.parse_schema(json.loads(text)) for i, text in enumerate(registry.texts)}
    used, whys = dict[int, None](), dict[str, None]()
    for n in range(500):
        drawn = values.draw(b"key-%d" % n)
        assert drawn.value is not None
        schema_id = int.from_bytes(drawn.value[1:5], "big")
        if isinstance(drawn.meaning, Row):
            assert drawn.value[0] == 0
            read = fastavro.schemaless_reader(io.BytesIO(drawn.value[5:]), schemas[schema_id], None)
            assert read == drawn.meaning.columns
            used[schema_id] = None
        else:
            assert isinstance(drawn.meaning, Dead)
            assert drawn.value[0] != 0 or schema_id not in schemas or len(drawn.value) == 5
            whys[drawn.meaning.why] = None
    assert len(used) == GENERATIONS
    assert len(whys) == 3


def test_schemas_are_valid() -> None:
    for generation in range(GENERATIONS):
        parse_schema(schema_text(generation))


async def test_a_feeder_feeds_rows_and_dead_letters(server: Server) -> None:
    world = world_of(server)
    values = AvroValues(random.Random(1), "s", bad_share=0.2)
    await values.register_all(world, Registry(failures=2).register)
    feeder = TableFeeder(world, "f", random.Random(1), [await new_topic(world)], values)
    await run_until(world, lambda: world.ledger.records_acked > 50, feeder)
    (log,) = (await check_all(world, random.Random(2))).values()
    sent = [world.ledger.sent(record.key) for record in log.records.values()]
    meanings = [s.meaning for s in sent if s is not None]
    assert any(isinstance(m, Row) for m in meanings)
    assert any(isinstance(m, Dead) for m in meanings)


async def test_the_registry_may_fail_but_not_lie(server: Server) -> None:
    world, registry = world_of(server), Registry(failures=3)
    user = RegistryUser(world, random.Random(1), ["a-value", "b"], registry.register, registry.lookup, pace_s=0.01)
    await run_until(world, lambda: len(registry.texts) > 2, user)

    async def other(schema_id: int) -> str:
        return '"int"'

    await expect_violation(world_of(server), registry, other)


async def test_an_id_for_two_schemas_is_caught(server: Server) -> None:
    registry = Registry()

    async def one_for_all(subject: str, text: str) -> int:
        await registry.register(subject, text)
        registry.texts[0] = text
        return 1

    world = world_of(server)
    user = RegistryUser(world, random.Random(1), ["a"], one_for_all, registry.lookup, pace_s=0.01)
    with pytest.raises(Violation, match="was given to"):
        await run_on(world, user)


async def expect_violation(world: World, registry: Registry, lookup: object) -> None:
    user = RegistryUser(world, random.Random(1), ["a"], registry.register, lookup, pace_s=0.01)  # type: ignore[arg-type]
    with pytest.raises(Violation, match="was registered as"):
        await run_on(world, user)

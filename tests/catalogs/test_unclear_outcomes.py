"""A catalog that does not say, or lies about, whether a request was carried out: no gap and no double row, in any case.

Faults happen on the way between client and server (support/catalog_faults.py, support/tcp_faults.py); the commits are
those of dead letters and of rows with a new column, by the real committer.
"""

import itertools
from random import Random

import pytest
from pyiceberg.catalog import Catalog
from support.catalog_kinds import CatalogKind, RunningCatalog, chosen
from support.table_world import BAD, World, drain, good

from streamlake.catalogs.kinds import capabilities_of

pytestmark = pytest.mark.whole

STORM_ROUNDS = 8
numbers = itertools.count(1)

FAULTS = [
    pytest.param(kind, fault, id=f"{kind.title}-{title}")
    for kind in chosen()
    for fault, title in kind.faults_by_title().items()
]
OF_CREATES = {"reset_before", "reset_after", "error", "applied_error"} | {
    f"{s}{c}" for s in ("", "applied_") for c in (409, 500, 503)
}
CREATE_FAULTS = [param for param in FAULTS if param.values[1] in OF_CREATES]


def new_world(kind: str, catalog: Catalog) -> World:
    world = World(catalog=catalog, topic=f"topic{next(numbers)}", namespace="unclear")
    world.capabilities = capabilities_of(kind, catalog)
    return world


@pytest.mark.parametrize(("kind", "fault"), FAULTS, indirect=["kind"])
async def test_unclear_commit(kind: CatalogKind, running: RunningCatalog, fault: str) -> None:
    with running.faulty() as (catalog, faults):
        world = new_world(running.kind, catalog)
        world.log.produce(0, [*good(range(3)), BAD])
        life = world.life()
        await life.drain()

        for table in (world.topic + "__dlq", world.topic):
            faults.plan("commit", table, fault)
        before = faults.requests["commit"]
        world.log.produce(0, [*good(range(3, 6), 2), BAD])
        await life.round()
        world.check()
        assert life.table.main.progress.next == (8,)
        assert dict(faults.faults) == {("commit", fault): 2}
        # Sent again: by the committer, which saw that it had not landed, or by the client, unasked.
        landed = fault.startswith("applied_") or fault == "reset_after"
        once = landed and fault not in kind.sent_again
        assert faults.requests["commit"] - before == (2 if once else 4)
        await life.rounds(1)
        world.check()


@pytest.mark.parametrize(("kind", "fault"), CREATE_FAULTS, indirect=["kind"])
async def test_unclear_create(kind: CatalogKind, running: RunningCatalog, fault: str) -> None:
    with running.faulty() as (catalog, faults):
        world = new_world(running.kind, catalog)
        world.log.produce(0, [*good(range(3)), BAD])
        for table in (world.topic + "__dlq", world.topic):
            faults.plan("create", table, fault)
        await drain(world)
        world.check()
        assert dict(faults.faults) == {("create", fault): 2}


async def test_many_faults_in_a_row(kind: CatalogKind, running: RunningCatalog) -> None:
    """At any request of the committer, the look back after a fault included."""
    random = Random(1)
    with running.faulty() as (catalog, faults):
        world = new_world(running.kind, catalog)
        tables = (world.topic + "__dlq", world.topic)
        life = await world.opened()
        for n in range(STORM_ROUNDS):
            for _ in range(random.randint(1, 3)):
                faults.plan(random.choice(faults.operations), random.choice(tables), random.choice(kind.faults))
            world.log.produce(0, [*good([n], random.choice((1, 2))), *random.choice(([], [BAD]))])
            try:
                await life.round()
            except Exception:
                life = await drain(world)
            faults.heal()
            world.check()
        assert faults.faults.total() > STORM_ROUNDS // 2

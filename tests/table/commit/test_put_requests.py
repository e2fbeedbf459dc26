"""What a commit costs in a bucket: each file of it is one PUT, so that it cannot grow unnoticed."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fault_proxy import FaultProxy
from support.seaweedfs import SeaweedFS
from support.table_world import BAD, Life, World, good

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.kinds import load
from streamlake.table.commit import health

PUT_CLASS = ("put", "create", "multipart_start", "multipart_part", "multipart_complete")  # as a bill counts them


@pytest.fixture
def proxy(seaweedfs: SeaweedFS) -> Iterator[FaultProxy]:
    with FaultProxy(seaweedfs.s3_endpoint, "") as proxy:
        yield proxy


@pytest.fixture
def world(seaweedfs: SeaweedFS, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(health, "LOOK_S", math.inf)  # now and then a commit reads more than it must
    properties = {
        "uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": f"s3://{seaweedfs.folder()}",
        "s3.endpoint": proxy.endpoint, "s3.region": seaweedfs.region, "s3.access-key-id": seaweedfs.access_key,
        "s3.secret-access-key": seaweedfs.secret_key,
    }  # fmt: skip
    return World(catalog=load(CatalogConfig("sql", "lake", properties)))


async def spent(proxy: FaultProxy, life: Life) -> Counter[str]:
    """Requests of one round, by operation."""
    before = Counter(proxy.requests)
    assert await life.round()
    return proxy.requests - before


async def test_a_commit_is_four_puts(world: World, proxy: FaultProxy) -> None:
    """Data file, manifest, manifest list, metadata file."""
    world.log.produce(0, good(range(3)))
    life = world.life()
    await life.drain()  # makes the tables
    for n in range(3, 6):
        world.log.produce(0, good([n]))
        found = await spent(proxy, life)
        assert sum(found[operation] for operation in PUT_CLASS) == 4, found
        assert (found["put"], found["create"], found["list"], found["delete"]) == (3, 1, 0, 0), found
        assert found["get"] + found["get_range"] <= 2, found  # of the metadata file
    world.check()


async def test_a_commit_with_dead_letters_is_four_puts_for_each_table(world: World, proxy: FaultProxy) -> None:
    world.log.produce(0, [*good(range(3)), BAD])
    life = world.life()
    await life.drain()
    world.log.produce(0, [*good([3]), BAD])
    found = await spent(proxy, life)
    assert sum(found[operation] for operation in PUT_CLASS) == 8, found
    world.check()

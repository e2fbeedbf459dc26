import asyncio

import pytest

from streamlake.cluster.store.producer_ids import BLOCK_IDS, ProducerIdBlocks
from streamlake.core.errors import Fenced


async def test_blocks_never_overlap_not_even_after_a_restart(cluster) -> None:
    blocks = await asyncio.gather(
        *[ProducerIdBlocks(cluster.database, cluster.identity).next_block() for _ in range(3)]
    )
    blocks.append(await ProducerIdBlocks(cluster.database, await cluster.register()).next_block())
    ids = [i for block in blocks for i in block]
    assert len(ids) == len(set(ids)) == 4 * BLOCK_IDS
    assert min(ids) > 0


async def test_a_zombie_gets_none(cluster) -> None:
    zombie = ProducerIdBlocks(cluster.database, cluster.identity)
    await cluster.register()
    before = await cluster.dump()
    with pytest.raises(Fenced):
        await zombie.next_block()
    assert await cluster.dump() == before

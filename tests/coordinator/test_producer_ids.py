import asyncio

import pytest

from streamlake.coordinator.producer_ids import ProducerIds
from streamlake.core.errors import Closed, Invalid


async def test_ids_are_given_once_even_across_restarts(metadata):
    producer_ids = ProducerIds(metadata.blocks)
    given = [await producer_ids.init() for _ in range(1_001)]
    given += [await ProducerIds(metadata.blocks).init() for _ in range(3)]
    assert {epoch for _, epoch in given} == {0}
    assert len({producer_id for producer_id, _ in given}) == len(given)
    assert producer_ids.given == 1_001


async def test_those_who_wait_share_a_block(metadata):
    producer_ids = ProducerIds(metadata.blocks)
    before = metadata.database.commits
    given = await asyncio.gather(*[producer_ids.init() for _ in range(50)])
    assert len(set(given)) == 50
    assert metadata.database.commits == before + 1


async def test_a_producer_that_lost_its_place_gets_a_new_id(metadata):
    producer_ids = ProducerIds(metadata.blocks)
    first = await producer_ids.init()
    assert await producer_ids.init(*first) != first


@pytest.mark.parametrize("given", [(5, -1), (-1, 0)])
async def test_half_an_identity_is_refused(metadata, given):
    with pytest.raises(Invalid):
        await ProducerIds(metadata.blocks).init(*given)


async def test_no_block_no_id(metadata):
    producer_ids = ProducerIds(metadata.blocks)
    await metadata.database.close()
    with pytest.raises(Closed):
        await producer_ids.init()
    assert producer_ids.given == 0

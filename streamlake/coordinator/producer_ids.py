"""Producer ids for idempotent producers (InitProducerId).

An id is given to one producer ever; ids come from durable blocks (cluster/store/producer_ids.py), one block at a time
in memory. As in Kafka a producer without a transactional id always gets a new id, even if it names the one it had: the
next epoch of that one may already belong to a copy of it, and such a producer raises its epoch by itself (KIP-360).
Transactional ids are refused by the handler.
"""

import asyncio
from collections.abc import Iterator

from streamlake.cluster.store.producer_ids import ProducerIdBlocks
from streamlake.core.errors import Invalid


class ProducerIds:
    def __init__(self, blocks: ProducerIdBlocks) -> None:
        self.given = 0
        self._blocks = blocks
        self._left: Iterator[int] = iter(())
        self._refill = asyncio.Lock()

    async def init(self, producer_id: int = -1, epoch: int = -1) -> tuple[int, int]:
        """A new producer id and its epoch 0. The arguments are what the producer had, -1 if nothing.

        Invalid: only one of both is given. Unavailable and other errors of the store: no block can be had now."""
        if (producer_id < 0) != (epoch < 0):
            raise Invalid("a producer id needs its epoch, and an epoch its producer id: give both or neither")
        return await self._next(), 0

    async def _next(self) -> int:
        found = next(self._left, None)
        while found is None:
            async with self._refill:  # one block for all who wait
                found = next(self._left, None)
                if found is None:
                    # Durable before the first id leaves: after a crash the next block begins above this one.
                    self._left = iter(await self._blocks.next_block())
                    found = next(self._left, None)
        self.given += 1
        return found

"""Producer ids for idempotent producers (InitProducerId).

No id is assigned twice. Ids come from durable blocks (cluster/store/producer_ids.py), of which one is in memory. As in
Kafka, a producer without a transactional id always receives a new id, even if it names its previous one: the next epoch
of that id may already belong to a copy of the producer, which raises its epoch by itself (KIP-360). The handler refuses
transactional ids.
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
        """A new producer id and its epoch 0. The arguments are the producer's previous id and epoch, or -1.

        Invalid: only one of them is given. Unavailable and other errors of the store: there is no block of ids now."""
        if (producer_id < 0) != (epoch < 0):
            raise Invalid("a producer id needs its epoch, and an epoch its producer id: give both or neither")
        return await self._next(), 0

    async def _next(self) -> int:
        found = next(self._left, None)
        while found is None:
            async with self._refill:  # all callers that wait share one block
                found = next(self._left, None)
                if found is None:
                    # Durable before the first id is used: after a crash the next block begins above this one.
                    self._left = iter(await self._blocks.next_block())
                    found = next(self._left, None)
        self.given += 1
        return found

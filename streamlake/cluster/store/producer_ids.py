"""Producer ids for idempotent producers, unique in the cluster for ever.

A block of ids is durably taken from the metadata store before any of its ids is used. The unused ids of a block are
lost, on purpose, when the broker stops.
"""

from sqlalchemy import Connection

from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.schema import take_ids

BLOCK_IDS = 1_000


class ProducerIdBlocks:
    def __init__(self, database: Database, identity: BrokerIdentity) -> None:
        self._database = database
        self._identity = identity

    async def next_block(self) -> range:
        """The next BLOCK_IDS ids. No other caller ever gets them."""

        def run(connection: Connection) -> range:
            first = take_ids(connection, "producer", BLOCK_IDS)
            return range(first, first + BLOCK_IDS)

        # Committed before the first id is returned: after a crash the next block begins above this one.
        return await self._database.write(run, self._identity)

"""Producer ids for idempotent producers: unique in the cluster for ever.

A block is taken from the metadata store, durably, before any of its ids is used; ids of a block that was not used up
when the broker stopped are lost on purpose.
"""

from sqlalchemy import Connection

from streamlake.cluster.store.database import Database
from streamlake.cluster.store.membership import BrokerIdentity, require_current
from streamlake.cluster.store.schema import take_ids

BLOCK_IDS = 1_000


class ProducerIdBlocks:
    def __init__(self, database: Database, identity: BrokerIdentity) -> None:
        self._database = database
        self._identity = identity

    async def next_block(self) -> range:
        """The next BLOCK_IDS ids, nobody else's now or ever."""

        def run(connection: Connection) -> range:
            require_current(connection, self._identity)
            first = take_ids(connection, "producer", BLOCK_IDS)
            return range(first, first + BLOCK_IDS)

        # Committed before the first id leaves this method: after a crash the next block begins above this one.
        return await self._database.write(run)

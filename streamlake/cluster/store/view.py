"""The cluster as one read of the metadata store shows it: what the controller decides by."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from streamlake.cluster.store.controllers import Term, term_of
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.drains import DrainRow, drains_of
from streamlake.cluster.store.membership import BrokerInfo, beat_view
from streamlake.cluster.store.wals import WalRow, wals_of


@dataclass(frozen=True, slots=True)
class ClusterView:
    revision: int  # of topics, configs, slots and leaders
    brokers: Mapping[int, BrokerInfo]  # all that ever registered, by node
    term: Term | None
    wals: list[WalRow]
    drains: list[DrainRow]

    def is_running(self, node: int, epoch: int) -> bool:
        """Whether this life of the node may run, as far as anybody knows."""
        broker = self.brokers.get(node)
        return broker is not None and broker.epoch == epoch and broker.may_run


async def read_view(database: Database) -> ClusterView:
    return await database.read(view_of)


def view_of(connection: Connection) -> ClusterView:
    seen = beat_view(connection)
    return ClusterView(
        revision=seen.revision,
        brokers={broker.node: broker for broker in seen.brokers},
        term=term_of(connection),
        wals=wals_of(connection),
        drains=drains_of(connection),
    )

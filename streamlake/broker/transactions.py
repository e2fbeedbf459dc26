"""Asks the coordinators of transactional ids, wherever these are: for the partitions that this broker leads, and for
the groups that it coordinates.

Questions for one broker that come while a request to it is under way share the next request: a transaction that begins
in many partitions at once costs its coordinator few writes. What has become of a transaction is read from the metadata
store, where each coordinator has made it durable.
"""

from collections.abc import Sequence
from uuid import UUID

import structlog

from streamlake.broker.batches import Batches
from streamlake.broker.peers import Peers
from streamlake.cluster.slots import Slots
from streamlake.cluster.store.transactions import TransactionStore
from streamlake.coordinator.stored_transaction import transaction_of
from streamlake.coordinator.transaction import PREPARED, Participant, Producer, TxnError, fate
from streamlake.coordinator.transactions import Transactions
from streamlake.core.errors import StreamLakeError
from streamlake.core.tasks import Supervisor
from streamlake.handlers.join_transactions import answer
from streamlake.log.transactions_port import Outcome, Told, Verdict, Verified
from streamlake.protocol.broker_messages.join_transactions import Join, JoinTransactionsRequest
from streamlake.protocol.errors import ErrorCode

JOINS_PER_REQUEST_MAX = 1_000
VERDICTS = {
    TxnError.NONE: Verdict.OPEN,
    TxnError.CONCURRENT_TRANSACTIONS: Verdict.ENDING,
    TxnError.PRODUCER_FENCED: Verdict.FENCED,
    TxnError.INVALID_PRODUCER_ID_MAPPING: Verdict.UNKNOWN_PRODUCER,
    TxnError.TRANSACTION_ABORTABLE: Verdict.NOT_OPEN,
}  # all others: the coordinator cannot be asked now
log = structlog.get_logger(__name__)


class ClusterTransactions:
    """Implements TransactionsPort."""

    def __init__(
        self,
        node: int,
        slots: Slots,
        transactions: Transactions,
        store: TransactionStore,
        peers: Peers,
        tasks: Supervisor,
    ) -> None:
        """`node`: this broker."""
        self._node = node
        self._slots = slots
        self._transactions = transactions
        self._store = store
        self._peers = peers
        self._batches = Batches(self._ask, JOINS_PER_REQUEST_MAX, tasks)

    async def verify(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        topic_id: UUID,
        partition: int,
        *,
        may_add: bool,
    ) -> Verified:
        error, number = await self._join(
            Join(transactional_id, producer_id, producer_epoch, may_add, topic_id, partition)
        )
        return Verified(VERDICTS.get(error, Verdict.UNAVAILABLE), number)

    async def outcome(self, producer_id: int, producer_epoch: int, topic_id: UUID, partition: int) -> Told:
        try:
            row = await self._store.of_producer(producer_id)
            known = None if row is None else transaction_of(row)
        except StreamLakeError as error:
            log.warning("what became of a transaction is not known", producer_id=producer_id, error=str(error))
            return Told(Outcome.UNAVAILABLE)
        # What is durable decides. An id that is not Ongoing or Prepared there has no open transaction: one that is
        # Prepared stays so until every partition has its marker.
        found = fate(known, Producer(producer_id, producer_epoch), Participant(topic_id, partition))
        if found is None:
            return Told(Outcome.ENDED)
        return Told(Outcome.PREPARED if found.state in PREPARED else Outcome.ONGOING, found.number)

    async def join_group(self, transactional_id: str, producer: Producer, group_id: str) -> TxnError:
        """The group joins the producer's transaction, which begins unless it is open."""
        error, _ = await self._join(Join(transactional_id, *producer, may_add=True, group_id=group_id))
        return error

    async def _join(self, join: Join) -> tuple[TxnError, int]:
        node = self._slots.coordinator_of(join.transactional_id)
        if node is None:
            return TxnError.COORDINATOR_NOT_AVAILABLE, -1
        if node == self._node:
            return await answer(self._transactions, join)
        try:
            return await self._batches.answer(node, join)
        except StreamLakeError as error:
            log.info("the coordinator of a transaction could not be asked", node=node, error=str(error))
            return TxnError.COORDINATOR_NOT_AVAILABLE, -1

    async def _ask(self, node: int, joins: Sequence[Join]) -> list[tuple[TxnError, int]]:
        answered = await self._peers.of(node).join_transactions(JoinTransactionsRequest(tuple(joins)))
        return [(TxnError[ErrorCode(result.error_code).name], result.number) for result in answered.results]

"""Offsets that a group commits within a transaction (TxnOffsetCommit): committed with it, or not at all.

They are rows beside the committed offsets until the transaction is decided. The broker that has the group's slot writes
them; whether the transaction is open is checked in the same SQL transaction, with the transaction's row locked, so that
nothing joins a transaction that is over.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from streamlake.cluster.store.groups import OffsetRow
from streamlake.cluster.store.transactions import TransactionStore, TxnRow
from streamlake.coordinator.classic.api import GroupError
from streamlake.coordinator.classic.api import store_error as group_error
from streamlake.coordinator.groups import GroupEntry, Groups
from streamlake.coordinator.offsets import CommitRequest, Offsets
from streamlake.coordinator.stored_transaction import transaction_of
from streamlake.coordinator.transaction import Producer, TxnError, verify_group
from streamlake.core.errors import Conflict, StreamLakeError

Join = Callable[[str, Producer, str], Awaitable[TxnError]]


class InTransaction(NamedTuple):
    transactional_id: str
    producer: Producer
    may_add: bool  # the client relies on the group's coordinator to add the group (version 5, KIP-890)


class _NotOpen(Conflict):
    """The transaction does not take the offsets."""

    def __init__(self, error: TxnError) -> None:
        super().__init__(f"the transaction is not open for these offsets: {error.name}")
        self.error = error


class TxnOffsets:
    """`join(transactional_id, producer, group_id)` has the group join the producer's transaction, wherever that is
    coordinated."""

    def __init__(self, groups: Groups, offsets: Offsets, store: TransactionStore, join: Join) -> None:
        self._groups = groups
        self._offsets = offsets
        self._store = store
        self._join = join

    async def commit(self, request: CommitRequest, within: InTransaction) -> Sequence[GroupError | TxnError]:
        """One result per offset, in order. NONE: it is committed if and when the transaction is."""
        results, accepted = self._offsets.accept(request.offsets)
        error = await self._commit(request, within, accepted)
        ok = error in (GroupError.NONE, TxnError.NONE)
        return results if ok else [error if result is GroupError.NONE else result for result in results]

    async def _commit(
        self, request: CommitRequest, within: InTransaction, accepted: Sequence[OffsetRow]
    ) -> GroupError | TxnError:
        if refused := self._groups.refusal(request.group_id):
            return refused  # before the transaction is touched
        if within.may_add:
            joined = await self._join(within.transactional_id, within.producer, request.group_id)
            if joined is not TxnError.NONE:
                return joined
        error, entry = self._groups.check_commit(
            request.group_id,
            request.member_id,
            request.group_instance_id,
            request.generation,
            creates=bool(accepted),
            is_transactional=True,
        )
        if error is not GroupError.NONE or entry is None or not accepted:
            return error
        try:
            await self._groups.make_durable(entry)
            await self._add(entry, request.group_id, within, accepted)
        except _NotOpen as refused_late:
            return refused_late.error
        except StreamLakeError as failed:
            return group_error(failed)
        # The rows are on stable storage, bound to a transaction that was open: its decision finds them.
        return GroupError.NONE

    async def _add(self, entry: GroupEntry, group_id: str, within: InTransaction, offsets: Sequence[OffsetRow]) -> None:
        def check(row: TxnRow | None) -> None:
            known = None if row is None else transaction_of(row)
            error = verify_group(known, within.producer, group_id)
            if error is not TxnError.NONE:
                raise _NotOpen(error)

        await self._store.add_offsets(within.transactional_id, group_id, offsets, entry.slot, check)

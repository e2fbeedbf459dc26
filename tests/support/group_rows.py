"""Groups in the metadata store, as the broker writes them that has taken all free slots."""

from collections.abc import Sequence

from streamlake.cluster.slots import Slots
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.groups import GroupRow, GroupStore, OffsetRow
from streamlake.cluster.store.slots import SLOTS, SlotStore, slot_of


class GroupRows:
    """The store, with the fences that it asks for: the slots as they were when this was made."""

    def __init__(self, store: GroupStore, slots: Slots) -> None:
        self.store = store
        self.fetch_offsets = store.fetch_offsets
        self._slots = dict(slots.ours)

    @classmethod
    async def of(cls, database: Database, identity: BrokerIdentity) -> "GroupRows":
        slots = Slots(SlotStore(database, identity), identity.node)
        await slots.take_free()
        return cls(GroupStore(database, identity, slots.stale.set), slots)

    async def all(self) -> list[GroupRow]:
        return await self.store.load_groups(range(SLOTS))

    async def save(self, row: GroupRow) -> None:
        await self.store.save_group(row, self._slots[slot_of(row.group_id)])

    async def delete(self, group_id: str, **how: bool) -> bool:
        return await self.store.delete_group(group_id, self._slots[slot_of(group_id)], **how)

    async def delete_offsets(self, group_id: str, *offsets: tuple[str, int]) -> None:
        await self.store.delete_offsets(group_id, offsets, self._slots[slot_of(group_id)])

    async def expire(self, group_id: str, until_ms: int, *kept_topics: str) -> tuple[int, bool]:
        return await self.store.expire_offsets(group_id, until_ms, kept_topics, self._slots[slot_of(group_id)])

    async def commit(self, group_id: str, offsets: Sequence[OffsetRow]) -> None:
        await self.store.commit_offsets(group_id, offsets, self._slots[slot_of(group_id)])

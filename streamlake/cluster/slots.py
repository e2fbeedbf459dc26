"""Whose each slot is (store/slots.py), as this broker knows: it tells clients who coordinates a group.

The image may be old. That is safe: a broker that has lost a slot without knowing it writes under an epoch that is over,
which is Fenced. It learns of the loss by that, or by its next beat, and drops the groups of the slot.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from streamlake.cluster.store.fences import SlotEpoch
from streamlake.cluster.store.slots import SlotRow, SlotStore, slot_of
from streamlake.telemetry.metric import Metric, gauge


class Slots:
    """The image of all slots. `refresh`, or `take_free`, once before use."""

    def __init__(self, store: SlotStore, node: int) -> None:
        """`node`: this broker."""
        self.revision = -1
        self.stale = asyncio.Event()  # a change was missed; image.keep_fresh reads the image again
        self.listeners: list[Callable[[], None]] = []  # called on the loop when what is ours has changed
        self._store = store
        self._node = node
        self._rows: dict[int, SlotRow] = {}
        self._ours: dict[int, SlotEpoch] = {}

    def metrics(self) -> Iterable[Metric]:
        return (
            gauge("streamlake_group_slots", "Slots of consumer groups, of 256, that this broker coordinates.",
                lambda: len(self._ours)),
        )  # fmt: skip

    @property
    def ours(self) -> Mapping[int, SlotEpoch]:
        """The slots of this broker, by id, under the epochs that fence writes of their groups."""
        return self._ours

    def coordinator_of(self, group_id: str) -> int | None:
        """The node that coordinates the group; None if nobody was assigned its slot yet."""
        row = self._rows.get(slot_of(group_id))
        return None if row is None else row.node

    async def take_free(self) -> int:
        """As SlotStore.take_free, and in the image on return."""
        taken = await self._store.take_free()
        await self.refresh()
        return taken

    async def refresh(self) -> None:
        revision, rows = await self._store.load_changed(self.revision)
        # Nothing is awaited from here on. A write that was Fenced after this read is answered after it, and marks the
        # image as stale again.
        self.stale.clear()
        if revision < self.revision:
            return
        self.revision = revision
        if rows is None:
            return
        self._rows = {row.id: row for row in rows}
        ours = {row.id: row.fence for row in rows if row.node == self._node}
        if ours != self._ours:
            self._ours = ours
            for listener in self.listeners:
                listener()

"""The slots of this broker as one coordinator has them: which it holds, and of which it is still to load what is there.

A slot that was not ours for a while, however short, is lost and gained: another broker may have written in between.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from streamlake.cluster.slots import Slots
from streamlake.cluster.store.fences import SlotEpoch
from streamlake.core.errors import StreamLakeError

LOAD_RETRY_S = 0.5
log = structlog.get_logger(__name__)


class HeldSlots:
    def __init__(self, slots: Slots) -> None:
        self.epochs: dict[int, SlotEpoch] = {}  # of the slots that are held, loaded or not
        self.loading: set[int] = set()
        self._slots = slots

    def follow(self) -> tuple[set[int], list[SlotEpoch]]:
        """Hold what is ours now: the slots that were lost, whose entries are to be dropped, and those to load."""
        before, self.epochs = self.epochs, dict(self._slots.ours)
        lost = {slot for slot, epoch in before.items() if self.epochs.get(slot) != epoch}
        gained = [epoch for slot, epoch in self.epochs.items() if before.get(slot) != epoch]
        self.loading = (self.loading - lost) | {epoch.slot for epoch in gained}
        return lost, gained

    def has(self, epoch: SlotEpoch) -> bool:
        """Whether the slot has been held under this epoch since."""
        return self.epochs.get(epoch.slot) == epoch

    def loaded(self, epoch: SlotEpoch) -> None:
        """All that is of the slot under this epoch is here."""
        if self.has(epoch):
            self.loading.discard(epoch.slot)


async def load_in_the_end(
    load: Callable[[Sequence[SlotEpoch]], Awaitable[None]], slots: Sequence[SlotEpoch], what: str
) -> None:
    """`load` the slots, again and again until it succeeds. `what` is of them: for the log."""
    while True:
        try:
            await load(slots)
            return
        except StreamLakeError as error:
            log.warning(f"{what} could not be loaded; retrying", slots=len(slots), error=str(error))
        await asyncio.sleep(LOAD_RETRY_S)

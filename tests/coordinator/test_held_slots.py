"""Which slots a coordinator holds, and has loaded, while they come and go."""

from types import SimpleNamespace
from typing import Any

import pytest

from streamlake.cluster.store.fences import SlotEpoch
from streamlake.coordinator import held_slots
from streamlake.coordinator.held_slots import HeldSlots, load_in_the_end
from streamlake.core.errors import Unavailable


def test_what_was_away_however_short_is_loaded_again() -> None:
    slots: Any = SimpleNamespace(ours={1: SlotEpoch(1, 5), 2: SlotEpoch(2, 5)})
    held = HeldSlots(slots)
    assert held.follow() == (set(), [SlotEpoch(1, 5), SlotEpoch(2, 5)])
    for slot in (1, 2):
        held.loaded(SlotEpoch(slot, 5))
    assert held.loading == set() and held.follow() == (set(), [])
    slots.ours = {2: SlotEpoch(2, 7)}
    assert held.follow() == ({1, 2}, [SlotEpoch(2, 7)])
    assert (held.epochs, held.loading) == ({2: SlotEpoch(2, 7)}, {2})
    assert held.has(SlotEpoch(2, 7)) and not held.has(SlotEpoch(2, 5)) and not held.has(SlotEpoch(1, 5))
    held.loaded(SlotEpoch(2, 5))  # of before
    assert held.loading == {2}
    slots.ours = {}
    assert held.follow() == ({2}, []) and not held.loading


async def test_a_load_is_tried_until_it_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_slots, "LOAD_RETRY_S", 0)
    tried = []

    async def load(slots: Any) -> None:
        tried.append(slots)
        if len(tried) < 3:
            raise Unavailable("down")

    await load_in_the_end(load, [SlotEpoch(1, 5)], "groups")
    assert tried == [[SlotEpoch(1, 5)]] * 3

"""Machines of every kind, new ones and stored ones."""

import pytest

from streamlake.cluster.store.groups import GroupRow
from streamlake.coordinator.kinds import Kinds, kind_of
from streamlake.coordinator.settings import GroupSettings
from streamlake.core.ids import Ids

KINDS = Kinds(GroupSettings(), lambda name: None, Ids(1).uuid)


@pytest.mark.parametrize("kind", ["classic", "consumer"])
def test_a_group_is_restored_as_what_it_was(kind: str) -> None:
    new = KINDS.consumer("g") if kind == "consumer" else KINDS.classic("g")
    again, is_whole = KINDS.restored(new.snapshot().row("g", 1), 0)
    assert is_whole and kind_of(new) == kind_of(again) == kind
    assert (again.group_id, again.member_count, again.state.value) == ("g", 0, "Empty")


@pytest.mark.parametrize("kind", ["classic", "consumer"])
def test_members_that_cannot_be_read_are_lost_and_the_epoch_is_not(kind: str) -> None:
    group, is_whole = KINDS.restored(GroupRow("g", 7, "consumer", "range", None, b"rubbish", 1, kind), 0)
    assert (kind_of(group), group.member_count, is_whole) == (kind, 0, False)
    assert group.snapshot().epoch == 7

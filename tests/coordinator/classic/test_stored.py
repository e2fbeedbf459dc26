from streamlake.cluster.store.groups import GroupRow
from streamlake.coordinator.classic.stored import SavedGroup


async def test_a_group_is_stored_in_the_columns_of_its_table(metadata):
    saved = SavedGroup("classic", 7, b"\x00members", "consumer", "range", "m-1")
    row = saved.row("g", 5)
    assert row == GroupRow("g", 7, "consumer", "range", "m-1", b"\x00members", 5)
    await metadata.groups.save_group(row, metadata.slot(row.group_id))
    (stored,) = await metadata.stored_groups()
    assert SavedGroup.of(stored) == saved

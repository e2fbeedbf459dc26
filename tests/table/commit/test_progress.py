import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.table_world import World, good

from streamlake.core.errors import Invalid
from streamlake.table.commit.progress import PROGRESS, Bookmark, Progress, beginning, encode, find

POSITIONS = st.lists(st.integers(0, 2**62), max_size=8).map(tuple)
SKIPPED = st.dictionaries(st.sampled_from(["control", "aborted", "dead_letter"]), st.integers(1, 2**40))


@st.composite
def progresses(draw: st.DrawFn) -> Progress:
    return Progress(
        "c", "topic", "id", draw(st.integers(0, 9)), draw(st.integers(0, 9)), draw(POSITIONS), draw(SKIPPED)
    )


@given(progresses())
def test_round_trip(progress: Progress) -> None:
    import msgspec

    assert msgspec.json.decode(encode(progress), type=Progress) == progress
    bookmark = Bookmark(7, 3, progress)
    assert msgspec.json.decode(encode(bookmark), type=Bookmark) == bookmark


def test_golden() -> None:
    """Tables hold this text for years: change it only together with `version`."""
    progress = Progress("c-1", "orders", "t-1", 3, 9, (5, 0, 12), {"control": 2, "dead_letter": 1})
    text = (
        '{"cluster_id":"c-1","topic":"orders","topic_id":"t-1","epoch":3,"number":9,"next":[5,0,12],'
        '"skipped":{"control":2,"dead_letter":1},"version":1}'
    )
    assert encode(progress) == text
    assert encode(Bookmark(8, 2, progress)) == f'{{"snapshot_id":8,"sequence_number":2,"progress":{text}}}'
    assert progress.rows == 14


@given(progresses(), st.dictionaries(st.integers(0, 9), st.integers(0, 2**40), max_size=4), SKIPPED)
def test_advancing_moves_only_what_it_names(progress: Progress, moves: dict[int, int], skipped: dict[str, int]) -> None:
    after = progress.advanced(5, moves, skipped)
    assert after != progress
    assert (after.epoch, after.number) == (5, progress.number + 1)
    for partition in range(12):
        assert after.position(partition) == moves.get(partition, progress.position(partition))
    for reason in {*progress.skipped, *skipped}:
        assert after.skipped.get(reason, 0) == progress.skipped.get(reason, 0) + skipped.get(reason, 0)


def test_a_map_that_is_compact_however_many_partitions() -> None:
    wide = beginning("c", "t", "i", 1).advanced(1, {999: 7}, {})
    assert len(wide.next) == 1000
    assert len(encode(wide)) < 2200


async def test_nothing_is_found_where_nothing_was_committed() -> None:
    world = World()
    life = await world.opened()
    world.log.produce(0, good([1]))
    assert find(world.load("__dlq").metadata) is not None
    await life.round()
    assert find(world.load().metadata) == life.table.main.progress


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("{}", "cannot be read"),
        ('{"cluster_id":"c","topic":"t","topic_id":"i","epoch":1,"number":1,"next":[-1],"skipped":{}}', "negative"),
        (
            '{"cluster_id":"c","topic":"t","topic_id":"i","epoch":1,"number":1,"next":[],"skipped":{},"version":2}',
            "upgrade",
        ),
    ],
)
async def test_a_damaged_progress_is_an_error_never_none(text: str, message: str) -> None:
    world = World()
    world.log.produce(0, good([1]))
    await world.life().drain()
    metadata = world.load().metadata
    metadata.current_snapshot().summary.additional_properties[PROGRESS] = text
    with pytest.raises(Invalid, match=message):
        find(metadata)

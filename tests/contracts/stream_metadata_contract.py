"""What every StreamMetadata does (s3stream/metadata.py), the rules against zombies above all.

A subclass gives the fixture `streams`, an object with `async create(n) -> list of ids`, `async delete(stream_id)`,
`async register() -> StreamMetadata`, a handle of the next process of the same node, whose WAL goes on,
`async drainer(node) -> StreamMetadata`, another node that drains the WAL of the last process that registered,
`async forget_wal()`, by which that WAL is off the list, `async elsewhere(node) -> StreamMetadata`, a handle of
another node with a WAL of its own, and `async hold(stream_id, offset)`: its table needs what lies there and above.
"""

import pytest

from streamlake.core.errors import Conflict, Fenced, NotFound, Unavailable
from streamlake.s3stream.metadata import Checkpoint, Closing, ObjectRanges, OpenAt, StreamRange, StreamTrim


def by_id(states) -> dict:
    return {state.stream_id: state for state in states}


async def opened(metadata, stream_ids, start_offsets) -> list:
    """The states of streams that can all be opened; else the first error."""
    results = await metadata.open_streams([OpenAt(*at) for at in zip(stream_ids, start_offsets, strict=True)])
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


async def upload(metadata, *ranges: StreamRange, checkpoints=(), wal_trim: int = 0, size: int = 100) -> int:
    object_id = await metadata.prepare_object(1000)
    await metadata.commit_object(object_id, size, ranges, checkpoints, wal_trim)
    return object_id


async def everything(metadata) -> tuple:
    return await metadata.stream_states(), await metadata.objects(), await metadata.wal_trim()


class StreamMetadataContract:
    async def test_each_open_takes_the_next_epoch(self, streams) -> None:
        first, second = await streams.create(2)
        metadata = await streams.register()
        one, two = await opened(metadata, [second, first], [0, 0])
        assert (one.stream_id, two.stream_id) == (second, first)
        assert one.epochs == ((one.epoch, 0),)
        (again,) = await opened(metadata, [first], [0])
        assert again.epoch == two.epoch + 1
        assert again.epochs[-1] == (again.epoch, 0)
        assert by_id(await metadata.stream_states())[first] == again
        assert by_id(await metadata.stream_states())[second] == one

    async def test_the_history_says_where_each_epoch_began(self, streams) -> None:
        (s,) = await streams.create(1)
        metadata = await streams.register()
        (a,) = await opened(metadata, [s], [0])
        await upload(metadata, StreamRange(s, a.epoch, 0, 10))
        (b,) = await opened(metadata, [s], [15])  # five more lie in the WAL
        await upload(metadata, StreamRange(s, b.epoch, 10, 20))
        (c,) = await opened(metadata, [s], [20])
        assert c.epochs == ((a.epoch, 0), (b.epoch, 15), (c.epoch, 20))
        assert (c.start_offset, c.end_offset) == (0, 20)

    async def test_a_stream_that_cannot_be_opened_keeps_no_other_from_it(self, streams) -> None:
        (s,) = await streams.create(1)
        metadata = await streams.register()
        before = await everything(metadata)
        (unknown,) = await metadata.open_streams([OpenAt(s + 1000, 0)])
        assert isinstance(unknown, NotFound) and await everything(metadata) == before
        unknown, state = await metadata.open_streams([OpenAt(s + 1000, 0), OpenAt(s, 0)])
        assert isinstance(unknown, NotFound) and by_id(await metadata.stream_states())[s] == state

    async def test_a_stream_is_not_opened_below_its_committed_end(self, streams) -> None:
        """It was written to, by an owner that has closed it since, after its end was read."""
        (s,) = await streams.create(1)
        metadata = await streams.register()
        (state,) = await opened(metadata, [s], [0])
        await upload(metadata, StreamRange(s, state.epoch, 0, 10))
        before = await everything(metadata)
        with pytest.raises(Conflict, match="ends at 10, not at 9"):
            await opened(metadata, [s], [9])
        assert await everything(metadata) == before

    async def test_states_of_some_leave_out_unknown_ids(self, streams) -> None:
        first, second = await streams.create(2)
        metadata = await streams.register()
        assert set(by_id(await metadata.stream_states([second, second + 1000]))) == {second}
        assert await metadata.stream_states([]) == []
        assert set(by_id(await metadata.stream_states())) >= {first, second}

    async def test_a_commit_moves_everything_at_once(self, streams) -> None:
        first, second = await streams.create(2)
        metadata = await streams.register()
        a, b = await opened(metadata, [first, second], [0, 0])
        ranges = (
            StreamRange(first, a.epoch, 0, 10),
            StreamRange(first, a.epoch, 10, 15),
            StreamRange(second, b.epoch, 0, 7),
        )
        object_id = await upload(
            metadata, *ranges, checkpoints=[Checkpoint(first, 15, b"state")], wal_trim=42, size=1234
        )
        assert await metadata.objects() == [ObjectRanges(object_id, 1234, ranges)]
        states = by_id(await metadata.stream_states())
        assert (states[first].end_offset, states[first].checkpoint, states[first].checkpoint_offset) == (
            15,
            b"state",
            15,
        )
        assert (states[second].end_offset, states[second].checkpoint) == (7, b"")
        assert await metadata.wal_trim() == 42
        await upload(metadata, StreamRange(second, b.epoch, 7, 8), wal_trim=43)
        assert by_id(await metadata.stream_states())[first].checkpoint == b"state"
        assert await metadata.wal_trim() == 43

    async def test_a_prepared_object_is_not_an_object_yet(self, streams) -> None:
        metadata = await streams.register()
        ids = [await metadata.prepare_object(0) for _ in range(3)]
        assert len(set(ids)) == 3
        assert await metadata.objects() == []

    async def test_the_trim_and_the_streams_outlive_the_process(self, streams) -> None:
        (s,) = await streams.create(1)
        metadata = await streams.register()
        (state,) = await opened(metadata, [s], [0])
        await upload(metadata, StreamRange(s, state.epoch, 0, 10), wal_trim=5)
        before = await everything(metadata)
        assert await everything(await streams.register()) == before

    async def test_a_zombie_changes_nothing(self, streams) -> None:
        """Each write of a process whose node has a newer epoch is Fenced, and leaves no trace."""
        (s,) = await streams.create(1)
        zombie = await streams.register()
        (state,) = await opened(zombie, [s], [0])
        await upload(zombie, StreamRange(s, state.epoch, 0, 10), wal_trim=1)
        mine = await zombie.prepare_object(1000)
        doomed = await zombie.prepare_object(-1000)
        successor = await streams.register()
        before = await everything(successor)
        for attempt in (
            lambda: opened(zombie, [s], [10]),
            lambda: zombie.prepare_object(0),
            lambda: zombie.commit_object(mine, 1, [StreamRange(s, state.epoch, 10, 20)], [], 2),
            lambda: zombie.trim_streams([StreamTrim(s, state.epoch, 5, None)]),
            lambda: zombie.trim_wal(9),
            lambda: zombie.destroyable_objects(),
            lambda: zombie.forget_objects([doomed]),
        ):
            with pytest.raises(Fenced):
                await attempt()
        assert await everything(successor) == before
        assert await successor.destroyable_objects() == [doomed]

    async def test_a_stream_that_was_opened_again_refuses_the_older_epoch(self, streams) -> None:
        (s,) = await streams.create(1)
        metadata = await streams.register()
        (old,) = await opened(metadata, [s], [0])
        await opened(metadata, [s], [0])
        before = await everything(metadata)
        with pytest.raises(Fenced):
            await upload(metadata, StreamRange(s, old.epoch, 0, 10))
        assert await everything(metadata) == before

    @pytest.mark.parametrize(("start", "end"), [(0, 10), (5, 15), (11, 20)])
    async def test_a_range_must_begin_where_the_stream_ends(self, streams, start: int, end: int) -> None:
        """Hazard C5: an overlap, a repeat or a gap; the other ranges of the object do not land either."""
        first, second = await streams.create(2)
        metadata = await streams.register()
        a, b = await opened(metadata, [first, second], [0, 0])
        await upload(metadata, StreamRange(second, b.epoch, 0, 10))
        before = await everything(metadata)
        with pytest.raises(Conflict):
            await upload(
                metadata, StreamRange(first, a.epoch, 0, 3), StreamRange(second, b.epoch, start, end), wal_trim=9
            )
        assert await everything(metadata) == before

    async def test_an_object_is_committed_once(self, streams) -> None:
        (s,) = await streams.create(1)
        metadata = await streams.register()
        (state,) = await opened(metadata, [s], [0])
        object_id = await upload(metadata, StreamRange(s, state.epoch, 0, 10))
        before = await everything(metadata)
        with pytest.raises(Conflict):
            await metadata.commit_object(object_id, 1, [StreamRange(s, state.epoch, 10, 20)], [], 7)
        with pytest.raises(Conflict):
            await metadata.commit_object(object_id + 1000, 1, [StreamRange(s, state.epoch, 10, 20)], [], 7)
        assert await everything(metadata) == before

    async def test_an_upload_slower_than_gc_is_in_conflict(self, streams) -> None:
        (s,) = await streams.create(1)
        metadata = await streams.register()
        (state,) = await opened(metadata, [s], [0])
        object_id = await metadata.prepare_object(0)
        assert await metadata.destroyable_objects() == []
        streams.pass_time(1)
        assert await metadata.destroyable_objects() == [object_id]
        before = await everything(metadata)
        with pytest.raises(Conflict):
            await metadata.commit_object(object_id, 1, [StreamRange(s, state.epoch, 0, 10)], [], 7)
        assert await everything(metadata) == before

    async def test_ranges_of_deleted_streams_are_dropped(self, streams) -> None:
        first, second = await streams.create(2)
        metadata = await streams.register()
        a, b = await opened(metadata, [first, second], [0, 0])
        await streams.delete(first)
        await upload(
            metadata,
            StreamRange(first, a.epoch, 0, 10),
            StreamRange(second, b.epoch, 0, 10),
            checkpoints=[Checkpoint(first, 10, b"gone"), Checkpoint(second, 10, b"here")],
            wal_trim=3,
        )
        (found,) = await metadata.objects()
        assert [r.stream_id for r in found.ranges] == [second]
        assert set(by_id(await metadata.stream_states())) == {second}
        assert await metadata.wal_trim() == 3

    async def test_the_wal_trim_moves_without_an_object_too_and_only_forward(self, streams) -> None:
        metadata = await streams.register()
        await metadata.trim_wal(7)
        assert await (await streams.register()).wal_trim() == 7
        metadata = await streams.register()
        await metadata.trim_wal(3)
        assert await metadata.wal_trim() == 7

    async def test_the_trim_of_a_commit_moves_only_forward(self, streams) -> None:
        metadata = await streams.register()
        await upload(metadata, wal_trim=10)
        await upload(metadata, wal_trim=5)
        assert await metadata.wal_trim() == 10

    async def test_another_broker_drains_the_wal(self, streams) -> None:
        (s,) = await streams.create(1)
        dead = await streams.register()
        (state,) = await opened(dead, [s], [0])
        await upload(dead, StreamRange(s, state.epoch, 0, 10), wal_trim=7)
        drainer = await streams.drainer(5)
        await upload(drainer, StreamRange(s, state.epoch, 10, 20), wal_trim=9)
        await drainer.trim_wal(11)
        assert await drainer.wal_trim() == 7, "other parts may need what lies between"

    async def test_a_drain_that_was_overtaken_changes_nothing(self, streams) -> None:
        """The WAL was forgotten, or its own node is back and writes to it: the drain's view of it is old."""
        (s,) = await streams.create(1)
        dead = await streams.register()
        (state,) = await opened(dead, [s], [0])
        for overtake, view in ((streams.register, None), (streams.forget_wal, dead)):
            drainer = await streams.drainer(5)
            object_id = await drainer.prepare_object(1000)
            now = await overtake()
            before = await everything(now) if view is None else await dead.stream_states()
            for attempt in (
                lambda d=drainer, o=object_id: d.commit_object(o, 1, [StreamRange(s, state.epoch, 0, 10)], [], 99),
                lambda d=drainer: d.trim_wal(99),
                lambda d=drainer: d.wal_trim(),
            ):
                with pytest.raises(Fenced):
                    await attempt()
            assert before == (await everything(now) if view is None else await dead.stream_states())
            assert await drainer.objects() == []

    async def test_only_a_stream_that_nobody_owns_is_opened(self, streams) -> None:
        """The owner's WAL may hold records beyond the committed end: offsets would be given twice."""
        first, second = await streams.create(2)
        owner = await streams.register()
        mine = by_id(await opened(owner, [first, second], [0, 0]))
        await upload(owner, StreamRange(first, mine[first].epoch, 0, 10))
        other = await streams.elsewhere(5)
        for result in await other.open_streams([OpenAt(second, 0), OpenAt(first, 10)]):
            assert isinstance(result, Unavailable)
        assert by_id(await other.stream_states())[second] == mine[second]
        await owner.close_streams([Closing(first, mine[first].epoch, 10)])
        refused, moved = await other.open_streams([OpenAt(second, 0), OpenAt(first, 10)])
        assert isinstance(refused, Unavailable)
        assert (moved.epoch, moved.end_offset) == (mine[first].epoch + 1, 10)
        with pytest.raises(Unavailable):
            await opened(owner, [first], [10])
        (again,) = await opened(owner, [second], [0])
        assert again.epoch == mine[second].epoch + 1, "the owner itself may"

    async def test_the_next_life_opens_the_streams_whose_records_its_wal_holds(self, streams) -> None:
        (s,) = await streams.create(1)
        (before,) = await opened(await streams.register(), [s], [0])
        (after,) = await opened(await streams.register(), [s], [5])
        assert after.epoch == before.epoch + 1

    async def test_a_drained_wal_gives_its_streams_free(self, streams) -> None:
        first, second = await streams.create(2)
        dead = await streams.register()
        (state, _) = await opened(dead, [first, second], [0, 0])
        drainer = await streams.drainer(5)
        await upload(drainer, StreamRange(first, state.epoch, 0, 10), wal_trim=7)
        other = await streams.elsewhere(6)
        with pytest.raises(Unavailable):
            await opened(other, [first], [10])
        await streams.forget_wal()
        assert len(await opened(other, [first, second], [10, 0])) == 2

    async def test_a_life_without_the_wal_of_the_one_before_waits_for_its_drain(self, streams) -> None:
        """The node has come back on another disk, or in a bucket: what its earlier life appended lies elsewhere."""
        (s,) = await streams.create(1)
        dead = await streams.register()
        await opened(dead, [s], [0])
        back = await streams.drainer(dead.node if hasattr(dead, "node") else 0)  # it has adopted no WAL of its own
        await streams.forget_wal()
        (state,) = await opened(back, [s], [0])
        assert state.end_offset == 0

    async def test_a_stream_is_closed_at_its_end(self, streams) -> None:
        (s,) = await streams.create(1)
        metadata = await streams.register()
        (state,) = await opened(metadata, [s], [0])
        await upload(metadata, StreamRange(s, state.epoch, 0, 10))
        for end in (9, 11):
            with pytest.raises(Conflict):
                await metadata.close_streams([Closing(s, state.epoch, end)])
        other = await streams.elsewhere(5)
        with pytest.raises(Unavailable):
            await opened(other, [s], [10])

    async def test_nothing_is_added_to_a_closed_stream(self, streams) -> None:
        (s,) = await streams.create(1)
        metadata = await streams.register()
        (state,) = await opened(metadata, [s], [0])
        object_id = await metadata.prepare_object(1000)
        await metadata.close_streams([Closing(s, state.epoch, 0)])
        with pytest.raises(Fenced):
            await metadata.commit_object(object_id, 1, [StreamRange(s, state.epoch, 0, 10)], [], 0)
        assert by_id(await metadata.stream_states())[s].end_offset == 0

    async def test_a_close_may_be_repeated(self, streams) -> None:
        """Its answer was lost; meanwhile the stream may be open elsewhere, or deleted."""
        first, second = await streams.create(2)
        metadata = await streams.register()
        a, b = await opened(metadata, [first, second], [0, 0])
        closings = [Closing(first, a.epoch, 0), Closing(second, b.epoch, 0)]
        await metadata.close_streams(closings)
        await metadata.close_streams(closings)
        other = await streams.elsewhere(5)
        (moved,) = await opened(other, [first], [0])
        await streams.delete(second)
        await metadata.close_streams(closings)
        await upload(other, StreamRange(first, moved.epoch, 0, 10))
        assert by_id(await other.stream_states())[first].end_offset == 10, "it is still open there"

    async def test_starts_only_move_forward(self, streams) -> None:
        first, second = await streams.create(2)
        metadata = await streams.register()
        epoch = (await opened(metadata, [first, second], [0, 0]))[0].epoch

        def trims(*starts: tuple[int, int]) -> list[StreamTrim]:
            return [StreamTrim(stream_id, epoch, start, None) for stream_id, start in starts]

        await metadata.trim_streams(trims((first, 10), (second, 20), (second + 1000, 5)))
        await metadata.trim_streams(trims((first, 5), (second, 30)))
        await metadata.trim_streams([])
        states = by_id(await metadata.stream_states())
        assert (states[first].start_offset, states[second].start_offset) == (10, 30)

    async def test_a_trim_that_spares_what_is_held_does_not_pass_a_hold(self, streams) -> None:
        """`hold-outside-trim`: the hold may have been set by another broker, after retention had looked."""
        (s,) = await streams.create(1)
        metadata = await streams.register()
        (state,) = await opened(metadata, [s], [0])
        await streams.hold(s, 10)
        await metadata.trim_streams([StreamTrim(s, state.epoch, 10, None, spares_held=True)])
        with pytest.raises(Conflict, match="held"):
            await metadata.trim_streams([StreamTrim(s, state.epoch, 11, None, spares_held=True)])
        assert by_id(await metadata.stream_states())[s].start_offset == 10
        await metadata.trim_streams([StreamTrim(s, state.epoch, 11, None)])
        assert by_id(await metadata.stream_states())[s].start_offset == 11, "a user asked for it"

    async def test_a_trim_brings_its_checkpoint_along(self, streams) -> None:
        """Above the committed end, even; an upload that was cut before and is committed later does not take it back."""
        (s,) = await streams.create(1)
        metadata = await streams.register()
        (state,) = await opened(metadata, [s], [0])
        object_id = await metadata.prepare_object(1000)
        await metadata.trim_streams([StreamTrim(s, state.epoch, 15, Checkpoint(s, 20, b"at 20"))])
        ranges = [StreamRange(s, state.epoch, 0, 10)]
        await metadata.commit_object(object_id, 1, ranges, [Checkpoint(s, 10, b"at 10")], 1)
        (now,) = await metadata.stream_states([s])
        assert (now.start_offset, now.end_offset, now.checkpoint_offset, now.checkpoint) == (15, 10, 20, b"at 20")
        await metadata.trim_streams([StreamTrim(s, state.epoch, 16, Checkpoint(s, 19, b"at 19"))])
        (now,) = await metadata.stream_states([s])
        assert (now.start_offset, now.checkpoint) == (16, b"at 20")
        (again,) = await opened(metadata, [s], [20])
        with pytest.raises(Fenced):
            await metadata.trim_streams([StreamTrim(s, state.epoch, 18, Checkpoint(s, 30, b"a zombie's"))])
        assert await metadata.stream_states([s]) == [again]

    async def test_notes_come_with_checkpoints_and_go_with_the_start(self, streams) -> None:
        """`notes-not-committed`: whoever opens the stream from a checkpoint has all notes up to it."""
        s, other = await streams.create(2)
        metadata = await streams.register()
        (state, _) = await opened(metadata, [s, other], [0, 0])
        assert state.notes == b""
        ten = [Checkpoint(s, 10, b"at 10", b"a")]
        await upload(metadata, StreamRange(s, state.epoch, 0, 10), checkpoints=ten)
        object_id = await metadata.prepare_object(1000)
        trim = StreamTrim(s, state.epoch, 5, Checkpoint(s, 30, b"at 30", b"bc"))
        await metadata.trim_streams([trim])
        await metadata.trim_streams([trim])
        twenty = [Checkpoint(s, 20, b"at 20", b"b")]
        await metadata.commit_object(object_id, 1, [StreamRange(s, state.epoch, 10, 20)], twenty, 1)
        (again,) = await opened(metadata, [s], [20])
        assert (again.checkpoint, again.notes) == (b"at 30", b"abbc"), "in order, and some may be there twice"
        await metadata.trim_streams([StreamTrim(s, again.epoch, 20, None)])
        (last,) = await opened(metadata, [s], [20])
        assert last.notes == b"bc"
        (unnoted,) = await opened(metadata, [other], [0])
        assert unnoted.notes == b""
        await streams.delete(s)

    async def test_a_zombie_notes_nothing(self, streams) -> None:
        (s,) = await streams.create(1)
        metadata = await streams.register()
        (state,) = await opened(metadata, [s], [0])
        object_id = await metadata.prepare_object(1000)
        (again,) = await opened(metadata, [s], [0])
        with pytest.raises(Fenced):
            ranges = [StreamRange(s, state.epoch, 0, 10)]
            await metadata.commit_object(object_id, 1, ranges, [Checkpoint(s, 10, b"at 10", b"a")], 1)
        with pytest.raises(Fenced):
            await metadata.trim_streams([StreamTrim(s, state.epoch, 0, Checkpoint(s, 10, b"at 10", b"a"))])
        (last,) = await opened(metadata, [s], [0])
        assert (last.notes, last.epoch) == (b"", again.epoch + 1)

    async def test_gc_takes_objects_that_nobody_can_read(self, streams) -> None:
        first, second = await streams.create(2)
        metadata = await streams.register()
        a, b = await opened(metadata, [first, second], [0, 0])
        one = await upload(metadata, StreamRange(first, a.epoch, 0, 10), StreamRange(second, b.epoch, 0, 10))
        two = await upload(metadata, StreamRange(first, a.epoch, 10, 20))
        late = await metadata.prepare_object(-1)
        early = await metadata.prepare_object(1)
        assert await metadata.destroyable_objects() == [late]
        await metadata.trim_streams([StreamTrim(first, a.epoch, 10, None), StreamTrim(second, b.epoch, 9, None)])
        assert await metadata.destroyable_objects() == [late]
        await metadata.trim_streams([StreamTrim(second, b.epoch, 10, None)])
        assert await metadata.destroyable_objects() == [one, late]
        assert [o.object_id for o in await metadata.objects()] == [two]
        await streams.delete(first)
        assert await metadata.destroyable_objects() == [one, two, late]
        # Marked ones are named until they are forgotten, also to the next process.
        metadata = await streams.register()
        assert await metadata.destroyable_objects() == [one, two, late]
        await metadata.forget_objects([one, late, early])
        assert await metadata.destroyable_objects() == [two]
        streams.pass_time(2)
        assert await metadata.destroyable_objects() == [two, early]

    async def test_an_object_of_nothing_is_garbage(self, streams) -> None:
        metadata = await streams.register()
        object_id = await upload(metadata)
        assert await metadata.destroyable_objects() == [object_id]

    # -- objects that replace others -----------------------------------------------------------------------------------

    async def test_a_new_object_takes_ranges_over(self, streams) -> None:
        first, second = await streams.create(2)
        metadata = await streams.register()
        a, b = (state.epoch for state in await opened(metadata, [first, second], [0, 0]))
        one = await upload(metadata, StreamRange(first, a, 0, 10), StreamRange(second, b, 0, 10), wal_trim=3)
        two = await upload(metadata, StreamRange(first, a, 10, 20), checkpoints=[Checkpoint(first, 20, b"at 20")])
        before = await metadata.stream_states()
        new = await metadata.prepare_object(1000)
        await metadata.replace_ranges(new, 77, [StreamRange(first, a, 0, 20)], [two, one])
        assert await metadata.objects() == [
            ObjectRanges(one, 100, (StreamRange(second, b, 0, 10),), given_offsets=10),
            ObjectRanges(new, 77, (StreamRange(first, a, 0, 20),)),
        ]
        assert await metadata.destroyable_objects() == [two]
        assert (await metadata.stream_states(), await metadata.wal_trim()) == (before, 3)
        newest = await metadata.prepare_object(1000)
        both = [StreamRange(first, a, 0, 20), StreamRange(second, b, 0, 10)]
        await metadata.replace_ranges(newest, 88, both, [one, new])
        assert await metadata.objects() == [ObjectRanges(newest, 88, tuple(both))]
        assert await metadata.destroyable_objects() == [one, two, new]

    async def test_what_is_deleted_need_not_be_taken_over(self, streams) -> None:
        """Starts move, and streams are deleted, between the plan of a replacement and its commit."""
        first, second = await streams.create(2)
        metadata = await streams.register()
        a, b = (state.epoch for state in await opened(metadata, [first, second], [0, 0]))
        one = await upload(metadata, StreamRange(first, a, 0, 10), StreamRange(second, b, 0, 10))
        two = await upload(metadata, StreamRange(first, a, 10, 20))
        await metadata.trim_streams([StreamTrim(first, a, 5, None)])
        new = await metadata.prepare_object(1000)
        await metadata.replace_ranges(new, 50, [StreamRange(first, a, 3, 20)], [one, two])
        await metadata.trim_streams([StreamTrim(first, a, 20, None)])
        assert await metadata.destroyable_objects() == [two, new]
        await metadata.forget_objects([two, new])
        newest = await metadata.prepare_object(1000)
        await streams.delete(second)
        gone = [StreamRange(first, a, 3, 20), StreamRange(second, b, 0, 10)]
        await metadata.replace_ranges(newest, 50, gone, [one, new])
        assert set(await metadata.destroyable_objects()) == {one, newest}

    async def test_nothing_that_can_be_read_is_lost_by_a_replacement(self, streams) -> None:
        """It is refused whole if the sources hold less, or would give up more, than the new object has."""
        (s,) = await streams.create(1)
        metadata = await streams.register()
        (state,) = await opened(metadata, [s], [0])
        epoch = state.epoch
        one, two, three = [await upload(metadata, StreamRange(s, epoch, at, at + 10)) for at in (0, 10, 20)]
        new = await metadata.prepare_object(1000)
        before = await metadata.objects()
        for start, end, sources in (
            (0, 20, [one]),  # the rest is elsewhere
            (0, 30, [one, three]),  # a gap
            (0, 15, [one, two]),  # a part of a source
            (5, 20, [one, two]),
            (0, 30, []),
            (20, 40, [three]),  # beyond the end
        ):
            with pytest.raises(Conflict):
                await metadata.replace_ranges(new, 1, [StreamRange(s, epoch, start, end)], sources)
        await metadata.trim_streams([StreamTrim(s, epoch, 12, None)])
        with pytest.raises(Conflict):  # all of it is deleted, but not all of the source
            await metadata.replace_ranges(new, 1, [StreamRange(s, epoch, 0, 11)], [one, two])
        assert await metadata.objects() == before
        await metadata.replace_ranges(new, 1, [StreamRange(s, epoch, 12, 30)], [one, two, three])
        with pytest.raises(Conflict, match="committed"):
            await metadata.replace_ranges(new, 1, [StreamRange(s, epoch, 12, 30)], [one, two, three])

    async def test_two_replacements_of_the_same_do_not_both_land(self, streams) -> None:
        (s,) = await streams.create(1)
        metadata = await streams.register()
        (state,) = await opened(metadata, [s], [0])
        sources = [await upload(metadata, StreamRange(s, state.epoch, at, at + 10)) for at in (0, 10)]
        first, second = await metadata.prepare_object(1000), await metadata.prepare_object(1000)
        ranges = [StreamRange(s, state.epoch, 0, 20)]
        await metadata.replace_ranges(first, 1, ranges, sources)
        with pytest.raises(Conflict):
            await metadata.replace_ranges(second, 1, ranges, sources)
        assert [o.object_id for o in await metadata.objects()] == [first]

    async def test_a_zombie_replaces_nothing(self, streams) -> None:
        """Its node was taken over; or the stream is at a newer epoch, or closed."""
        (s,) = await streams.create(1)
        metadata = await streams.register()
        (old,) = await opened(metadata, [s], [0])
        sources = [await upload(metadata, StreamRange(s, old.epoch, at, at + 10)) for at in (0, 10)]
        new = await metadata.prepare_object(1000)
        before = await metadata.objects()

        async def refused(handle, epoch: int) -> None:
            with pytest.raises(Fenced):
                await handle.replace_ranges(new, 1, [StreamRange(s, epoch, 0, 20)], sources)
            assert await metadata.objects() == before

        (state,) = await opened(metadata, [s], [20])
        await refused(metadata, old.epoch)
        await metadata.close_streams([Closing(s, state.epoch, 20)])
        await refused(metadata, state.epoch)
        owner = await streams.elsewhere(7)
        (theirs,) = await opened(owner, [s], [20])
        await refused(metadata, state.epoch)
        successor = await streams.register()
        await refused(metadata, theirs.epoch)
        assert await successor.destroyable_objects() == []

    async def test_gc_notices_that_an_object_gave_away_what_kept_it_alive(self, streams) -> None:
        first, second = await streams.create(2)
        metadata = await streams.register()
        a, b = (state.epoch for state in await opened(metadata, [first, second], [0, 0]))
        one = await upload(metadata, StreamRange(first, a, 0, 10), StreamRange(second, b, 0, 10))
        assert await metadata.destroyable_objects() == []
        new = await metadata.prepare_object(1000)
        await metadata.replace_ranges(new, 1, [StreamRange(first, a, 0, 10)], [one])
        assert await metadata.destroyable_objects() == []
        await metadata.trim_streams([StreamTrim(second, b, 10, None)])
        assert await metadata.destroyable_objects() == [one]

"""Objects that give ranges to another object, which holds the same offsets (compaction)."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, bindparam, select, update

from streamlake.cluster.store import object_ranges, schema
from streamlake.cluster.store.schema import COMMITTED, DESTROYED, in_lists
from streamlake.core.errors import Conflict
from streamlake.s3stream.metadata import StreamRange


class RangeSources:
    def __init__(self, connection: Connection, object_ids: Sequence[int]) -> None:
        """Locks the rows of the objects, in the order of their ids; those that are not committed any more are empty."""
        o = schema.object_.c
        self._connection = connection
        self._blobs: dict[int, bytes] = {}
        for ids in in_lists(sorted(object_ids)):
            query = select(o.id, o.ranges).where(o.id.in_(ids) & (o.state == COMMITTED)).order_by(o.id)
            self._blobs.update({row.id: row.ranges for row in connection.execute(query.with_for_update())})

    def give(self, ranges: Sequence[StreamRange], starts: Mapping[int, int]) -> None:
        """Take these ranges out of the sources. Conflict if the sources do not hold all of them from the starts of
        their streams on, or only a part of one of their own."""
        wanted = {r.stream_id: r for r in ranges}
        given: dict[int, list[StreamRange]] = {stream_id: [] for stream_id in wanted}
        changes = []
        for object_id, blob in self._blobs.items():
            held = object_ranges.decode(blob)
            out = [r for r in held if r.stream_id in wanted and _overlap(r, wanted[r.stream_id])]
            for r in out:
                given[r.stream_id].append(r)
            if out:
                gone = set(out)
                left = [r for r in held if r not in gone]
                offsets = object_ranges.given_offsets(blob) + sum(r.end_offset - r.start_offset for r in out)
                state = COMMITTED if left else DESTROYED
                changes.append({"source": object_id, "to": state, "left": object_ranges.encode(left, offsets)})
        for stream_id, r in wanted.items():
            _require_whole(r, given[stream_id], starts[stream_id])
        if changes:
            this = update(schema.object_).where(schema.object_.c.id == bindparam("source"))
            self._connection.execute(this.values(state=bindparam("to"), ranges=bindparam("left")), changes)


def _overlap(a: StreamRange, b: StreamRange) -> bool:
    return a.start_offset < b.end_offset and b.start_offset < a.end_offset


def _require_whole(wanted: StreamRange, given: list[StreamRange], stream_start: int) -> None:
    """What is given is `wanted`, and nothing else that can be read. Below the start of the stream nothing can."""
    covered = max(wanted.start_offset, stream_start)
    whole = True
    for r in sorted(given, key=lambda r: r.start_offset):
        cut = r.end_offset > wanted.end_offset or r.start_offset < wanted.start_offset > stream_start
        whole = whole and not cut and r.start_offset <= covered
        covered = max(covered, r.end_offset)
    if not whole or covered < wanted.end_offset:
        raise Conflict(
            f"offsets {wanted.start_offset} to {wanted.end_offset} of stream {wanted.stream_id} are not what the"
            " sources hold: they were replaced before; look at the objects again"
        )

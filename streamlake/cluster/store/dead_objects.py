"""Committed objects that have no range in a stream any more.

A read can decide this: starts only grow, deleted streams never return, and objects are given no more ranges, so a dead
object remains dead.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, func, select

from streamlake.cluster.store import object_ranges, schema
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.schema import COMMITTED

GC_OBJECTS_PER_READ = 256  # bounds how long garbage collection (gc) occupies the metadata thread

Witness = tuple[int, int, int]  # a stream and the end offset of a range in it, and the length of the object's blob


class DeadObjects:
    """The blob of an object is read only when it has changed, which its length tells, or when the range that kept it
    alive last time (its witness) is dead: a round reads one short row per object and stream, and few blobs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._witnesses: dict[int, Witness] = {}

    async def find(self) -> list[int]:
        lengths, starts = await self._database.read(_objects_then_starts)
        old = self._witnesses
        self._witnesses = {
            i: old[i] for i in lengths if i in old and _alive(starts, *old[i][:2]) and old[i][2] == lengths[i]
        }
        unsure = [i for i in lengths if i not in self._witnesses]
        dead = []
        for at in range(0, len(unsure), GC_OBJECTS_PER_READ):
            found = await self._find_witnesses(unsure[at : at + GC_OBJECTS_PER_READ], starts)
            dead += [object_id for object_id, witness in found if witness is None]
            self._witnesses.update((object_id, witness) for object_id, witness in found if witness is not None)
        return dead

    async def _find_witnesses(
        self, object_ids: Sequence[int], starts: dict[int, int]
    ) -> list[tuple[int, Witness | None]]:
        o = schema.object_.c
        query = select(o.id, o.ranges).where(o.id.in_(object_ids) & (o.state == COMMITTED))

        def witness(blob: bytes) -> Witness | None:
            rows = object_ranges.rows(blob)
            return next(((stream, end, len(blob)) for stream, _, _, end in rows if _alive(starts, stream, end)), None)

        return await self._database.read(
            lambda connection: [(object_id, witness(blob)) for object_id, blob in connection.execute(query)]
        )


def _objects_then_starts(connection: Connection) -> tuple[dict[int, int], dict[int, int]]:
    """Lengths of the blobs of committed objects, then the starts of all streams. The order matters: a stream that is
    created and written between the two statements must not look deleted to an object that commits it."""
    o, s = schema.object_.c, schema.stream.c
    query = select(o.id, func.length(o.ranges)).where(o.state == COMMITTED).order_by(o.id)
    lengths = {row[0]: row[1] for row in connection.execute(query)}
    starts = {row.id: row.start_offset for row in connection.execute(select(s.id, s.start_offset))}
    return lengths, starts


def _alive(starts: Mapping[int, int], stream_id: int, end_offset: int) -> bool:
    return stream_id in starts and starts[stream_id] < end_offset

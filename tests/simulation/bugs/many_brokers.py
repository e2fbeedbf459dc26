"""Bugs of several brokers that share streams, WALs and a controller (docs/adr/0020, 0023)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from simulation.bugs.planting import DAMAGED, LOST, MISSING, Replace, bug
from sqlalchemy import update

from streamlake.cluster import topics
from streamlake.cluster.store import drains, membership, schema, slots, stream_metadata
from streamlake.cluster.store.drains import DrainPart, Drains
from streamlake.cluster.store.fences import SlotEpoch
from streamlake.cluster.store.slots import SlotWrites
from streamlake.cluster.store.stream_metadata import SqlStreamMetadata
from streamlake.cluster.topics import Topics
from streamlake.core.errors import StreamLakeError
from streamlake.core.retry import TRANSIENT
from streamlake.s3stream.metadata import Closing, OpenAt, StreamState
from streamlake.s3stream.streams import Streams
from streamlake.s3stream.uploader import Cut, Uploader


@bug(*LOST, *DAMAGED)
def open_ignores_owner(replace: Replace) -> None:
    """A stream is opened by whoever it is assigned to, though the WAL of its former owner still holds records of it."""
    replace(stream_metadata, "_is_elsewhere", lambda row, identity, since_epoch: False)


@bug(*LOST, *DAMAGED)
def close_at_durable(replace: Replace) -> None:
    """A stream is closed at what is durable. What was in flight is acknowledged later, at offsets that are given again."""

    async def upload(self: Uploader, stream_ids: Sequence[int]) -> None:
        async with self._one_round:
            cuts = await self._cut([stream_id for stream_id in stream_ids if stream_id in self._appender.dirty])
            durable = [Cut(cut.log, cut.log.durable_offset, None) for cut in cuts]
            async for draft, _ in self._drafts(durable):
                await self._upload(draft, self._committed_trim)

    async def close_streams(self: SqlStreamMetadata, closings: Sequence[Closing]) -> None:
        s = schema.stream.c

        def run(connection: Any) -> None:
            for c in closings:
                this = (s.id == c.stream_id) & (s.epoch == c.stream_epoch)
                connection.execute(update(schema.stream).where(this).values(owner=None))

        await self._database.write(run, self._identity)

    replace(Uploader, "upload", upload)
    replace(SqlStreamMetadata, "close_streams", close_streams)


@bug(*LOST, *DAMAGED)
def drain_part_discards(replace: Replace) -> None:
    """Who has drained its part of a WAL discards all of it, though the others still read theirs."""
    finish = Drains.finish

    async def always_last(self: Drains, part: DrainPart) -> bool:
        await finish(self, part)
        return True

    replace(Drains, "finish", always_last)


@bug(*LOST, *DAMAGED)
def release_newer_life(replace: Replace) -> None:
    """A drain that ends gives free all streams of the node, those too that its next life has opened meanwhile."""
    finish = Drains.finish

    async def all_of_the_node(self: Drains, part: DrainPart) -> bool:
        last = await finish(self, part)
        held = schema.stream.c.owner == part.wal.node
        await self._database.write(
            lambda connection: connection.execute(update(schema.stream).where(held).values(owner=None)).rowcount
        )
        return last

    replace(Drains, "finish", all_of_the_node)


@bug(*LOST, *DAMAGED)
def sweep_undrained_epoch(replace: Replace) -> None:
    """The sweep of strays deletes the WALs of all earlier lives of a node, also of one that others still drain."""

    async def current(self: Drains, node: int) -> int:
        b = schema.broker.c
        epoch: int = await self._database.read(
            lambda connection: connection.execute(b.epoch.table.select().where(b.node == node)).one().epoch
        )
        return epoch

    replace(Drains, "first_undrained", current)


@bug("ends a drain that was given", *LOST, *DAMAGED)
def drain_without_fence(replace: Replace) -> None:
    """Who has lost its part of a drain to another broker goes on and commits."""
    replace(drains, "has_ended", lambda connection, part, identity: False)
    replace(stream_metadata, "require_drainer", lambda connection, part, identity: None)


@bug("while it held its lease", "its term as controller is over", *LOST, *DAMAGED)
def controller_not_fenced(replace: Replace) -> None:
    """A controller that was paused goes on by its old picture, though another one has followed."""
    for module in (drains, membership, slots, topics):
        replace(module, "require_controller", lambda connection, term: None)


@bug("committed for", "takes a commit", "belongs to")
def slot_fenced_by_broker_only(replace: Replace) -> None:
    """A group's writes are fenced by the epoch of their broker, and not by that of the slot: of two live brokers, each
    is current, and the former coordinator writes after the next one."""

    async def write(self: SlotWrites, run: Any, *slots: SlotEpoch) -> Any:
        return await self._database.write(run, self._identity)

    replace(SlotWrites, "write", write)


@bug(*MISSING)
def hold_outside_trim(replace: Replace) -> None:
    """Retention asks its own memory for the hold of a table, and not the transaction that trims: it passes the hold of
    a table that another broker has just begun."""
    replace(stream_metadata, "_require_unheld", lambda connection, trims: None)


@bug("and other topics", "is now", "is back", "is gone")
def revision_gap(replace: Replace) -> None:
    """A change of this broker is applied to its image, though the image lacks one that another broker made before."""

    def committed(self: Topics, writing: Any) -> None:
        if not writing.cancelled() and writing.exception() is None and writing.result().revision > self.revision:
            self._apply(writing.result())

    replace(Topics, "_committed", committed)


@bug("fenced, by nobody", *LOST, *DAMAGED)
def predicted_epoch(replace: Replace) -> None:
    """A broker that does not know whether it has opened a stream serves it, under the epoch that is next."""

    async def take_epochs(self: Streams, openings: Sequence[OpenAt]) -> list[StreamState | StreamLakeError]:
        try:
            return await self._metadata.open_streams(openings)
        except TRANSIENT:
            states = await self._metadata.stream_states([opening.stream_id for opening in openings])
            return [dataclasses.replace(state, epoch=state.epoch + 1) for state in states]

    replace(Streams, "_take_epochs", take_epochs)

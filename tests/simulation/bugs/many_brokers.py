"""Bugs of several brokers that share streams, WALs and a controller (docs/adr/0020, 0023)."""

from collections.abc import Sequence
from typing import Any

from simulation.bugs.planting import DAMAGED, LOST, Replace, bug
from sqlalchemy import update

from streamlake.cluster import topics
from streamlake.cluster.store import drains, membership, schema, stream_metadata
from streamlake.cluster.store.drains import DrainPart, Drains
from streamlake.cluster.store.stream_metadata import SqlStreamMetadata
from streamlake.s3stream.metadata import Closing
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


@bug(*LOST, *DAMAGED)
def drain_without_fence(replace: Replace) -> None:
    """Who has lost its part of a drain to another broker goes on and commits."""
    replace(drains, "require_drainer", lambda connection, part, identity: None)
    replace(stream_metadata, "require_drainer", lambda connection, part, identity: None)


@bug("while it held its lease", "its term as controller is over", *LOST, *DAMAGED)
def controller_not_fenced(replace: Replace) -> None:
    """A controller that was paused goes on by its old picture, though another one has followed."""
    for module in (drains, membership, topics):
        replace(module, "require_controller", lambda connection, term: None)

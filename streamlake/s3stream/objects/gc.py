"""Deletes objects that nothing needs: uploads that were never committed, and data below every stream's start.

Two phases, so that no crash leaks an object or loses one: the metadata store marks an object destroyed (it can never
be committed, or found by a new reader, again), a grace period passes for readers that planned with it, its bytes are
deleted, and only then is its row forgotten. A crash anywhere repeats the rest.
"""

import asyncio
from collections.abc import Callable

import structlog

from streamlake.core.retry import TRANSIENT
from streamlake.s3stream.metadata import StreamMetadata
from streamlake.s3stream.objects.format import object_key
from streamlake.s3stream.store.port import ObjectStore

OBJECTS_PER_DELETE = 1000
log = structlog.get_logger(__name__)


class GarbageCollector:
    def __init__(
        self,
        store: ObjectStore,
        metadata: StreamMetadata,
        interval_ms: int,
        grace_ms: int,
        is_ours: Callable[[], bool] = lambda: True,
    ) -> None:
        """`is_ours`: whether this broker is to collect garbage now. It does no harm if several do."""
        self._store = store
        self._metadata = metadata
        self._interval_s = interval_ms / 1000
        self._grace_s = grace_ms / 1000
        self._is_ours = is_ours
        self._seen_at: dict[int, float] = {}  # destroyed object → when this process learnt of it
        self.deleted_objects = 0
        self.failed_rounds = 0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            if not self._is_ours():
                continue
            try:
                await self.collect()
            except TRANSIENT as error:
                self.failed_rounds += 1
                log.warning("garbage collection failed, retrying", error=str(error))

    async def collect(self) -> None:
        """One round. Objects that became garbage just now go in a round after their grace period."""
        now = asyncio.get_running_loop().time()
        destroyed = await self._metadata.destroyable_objects()
        self._seen_at = {object_id: self._seen_at.get(object_id, now) for object_id in destroyed}
        due = [object_id for object_id, seen_at in self._seen_at.items() if now - seen_at >= self._grace_s]
        for at in range(0, len(due), OBJECTS_PER_DELETE):
            group = due[at : at + OBJECTS_PER_DELETE]
            # safe at a crash: `destroyed` is durable, so no commit brings these back; their rows stay until the bytes
            # are gone, so the next process deletes them again
            await self._store.delete([object_key(object_id) for object_id in group])
            await self._metadata.forget_objects(group)
            self.deleted_objects += len(group)
            for object_id in group:
                del self._seen_at[object_id]

"""The settings of S3Stream with their defaults, which are the server's too: streamlake/config.py takes them from here.

Memory is the sum of what `memory_bytes` returns."""

from dataclasses import dataclass, replace

from streamlake.core.ids import Ids
from streamlake.core.retry import Backoff

KIB = 1024
MIB = 1024 * KIB
MAX_FETCHES = 8  # range requests for blocks in flight at once, each up to read_ahead_bytes
WHOLE_OBJECTS_MAX = 2  # fetched at once
LITTLE_BYTES = 1 * MIB  # what a reader fetches at once where a request costs next to nothing
WHOLE_OBJECTS_IN_CACHE = 3  # that it must hold: one that is read, the next, and what others read


@dataclass(frozen=True, slots=True)
class StreamsSettings:
    log_cache_bytes: int = 256 * MIB  # chunks not yet uploaded, and recent ones
    block_cache_bytes: int = 128 * MIB  # blocks and indexes read from objects
    read_ahead_bytes: int = 4 * MIB  # one range request of a sequential reader
    upload_bytes: int = 64 * MIB  # upload when this much is not in objects yet
    upload_interval_ms: int = 30_000  # and at the latest this long after the first of it
    object_bytes: int = 32 * MIB  # an object is closed when it is this large: the memory of one upload
    block_bytes: int = 512 * KIB
    streams_per_commit: int = 2000  # a transaction of the metadata store names no more: it holds locks that others need
    prepare_ttl_ms: int = 3_600_000  # an object not committed by then may be collected
    gc_interval_ms: int = 60_000
    gc_grace_ms: int = 60_000  # readers that planned to read a destroyed object have finished by then
    compaction_interval_ms: int = 30_000
    compaction_bytes_per_s: int = 32 * MIB  # read by compaction, and about as much is written; 0: none
    retry_first_ms: int = 100
    retry_max_ms: int = 10_000
    whole_objects: bool = True  # a reader that reads much of an object fetches it whole

    @property
    def upload_trigger_bytes(self) -> int:
        """Half a cache of what cannot be evicted is the moment to act, whatever upload_bytes says."""
        return min(self.upload_bytes, self.log_cache_bytes // 2)

    @property
    def whole_objects_max(self) -> int:
        """How many objects readers may fetch whole at once: none where the cache would lose them before their use."""
        fits = self.block_cache_bytes >= WHOLE_OBJECTS_IN_CACHE * self.object_bytes
        return WHOLE_OBJECTS_MAX if self.whole_objects and fits else 0

    @property
    def compaction_bytes_max(self) -> int:
        """What one job of compaction may read: a new object, and what its sources need more for their tables."""
        return self.object_bytes * 3 // 2

    @property
    def compaction_read_bytes(self) -> int:
        """One range request of compaction, if blocks are no larger."""
        return min(self.read_ahead_bytes, self.object_bytes)

    def where_requests_are_free(self) -> "StreamsSettings":
        """For a local disk: large reads take processor time, caches and memory from producers, and save no requests."""
        return replace(self, read_ahead_bytes=min(self.read_ahead_bytes, LITTLE_BYTES), whole_objects=False)

    def backoff(self, ids: Ids) -> Backoff:
        return Backoff(ids, self.retry_first_ms / 1000, self.retry_max_ms / 1000)

    def memory_bytes(self) -> dict[str, int]:
        """What is taken from the memory budget at start, by account."""
        return {
            "log_cache": self.log_cache_bytes,
            "block_cache": self.block_cache_bytes,
            # a whole object is there twice: as it came, and cut into blocks
            "block_fetch": MAX_FETCHES * self.read_ahead_bytes + 2 * self.whole_objects_max * self.object_bytes,
            "upload": self.object_bytes + self.block_bytes,
            "compaction": self.compaction_bytes_max + self.compaction_read_bytes if self.compaction_bytes_per_s else 0,
        }

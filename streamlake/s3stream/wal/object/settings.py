"""The settings of an object WAL with their defaults, which are the server's too: see streamlake/config.py."""

from dataclasses import dataclass

from streamlake.core.errors import Invalid
from streamlake.core.ids import Ids
from streamlake.core.retry import Backoff
from streamlake.s3stream.wal.port import CAPACITY_BYTES


@dataclass(frozen=True, slots=True)
class ObjectWalSettings:
    object_bytes: int = 16 << 20  # an object is closed when it is this large
    linger_ms: int = 250  # or so long after the last one went; at once if that is longer ago, or if nothing comes
    uploads_max: int = 16  # at once
    unflushed_bytes_max: int = 64 << 20  # reserved, or appended and not yet durable
    capacity_bytes: int = CAPACITY_BYTES  # not trimmed
    retry_first_ms: int = 50
    retry_max_ms: int = 5_000

    @property
    def read_cache_bytes(self) -> int:
        """Two objects: one that is read, and the rest of the one before."""
        return 2 * self.object_bytes

    def __post_init__(self) -> None:
        if not 4096 <= self.object_bytes <= 256 << 20:
            raise Invalid(f"an object of the WAL has 4 KiB to 256 MiB, not {self.object_bytes} bytes")
        if not 1 <= self.uploads_max <= 256:
            raise Invalid(f"1 to 256 uploads of the WAL run at once, not {self.uploads_max}")
        if not self.object_bytes <= self.unflushed_bytes_max <= min(self.capacity_bytes, 1 << 30):
            raise Invalid(
                f"the WAL's object size, unflushed bytes (at most 1 GiB) and capacity must grow in this order:"
                f" {self.object_bytes}, {self.unflushed_bytes_max}, {self.capacity_bytes}"
            )

    def backoff(self, ids: Ids) -> Backoff:
        return Backoff(ids, self.retry_first_ms / 1000, self.retry_max_ms / 1000)

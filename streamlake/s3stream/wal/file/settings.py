"""The settings of a file WAL with their defaults, which are the server's too: see streamlake/config.py."""

from dataclasses import dataclass

from streamlake.core.errors import Invalid
from streamlake.s3stream.wal.file.format import SEGMENT_HEADER_BYTES
from streamlake.s3stream.wal.port import CAPACITY_BYTES


@dataclass(frozen=True, slots=True)
class FileWalSettings:
    capacity_bytes: int = CAPACITY_BYTES
    segment_bytes: int = 64 << 20
    group_bytes: int = 4 << 20  # a group is closed when it exceeds this

    def __post_init__(self) -> None:
        if not 4 * SEGMENT_HEADER_BYTES <= self.segment_bytes <= 1 << 30:
            raise Invalid(f"a WAL segment has 16 KiB to 1 GiB, not {self.segment_bytes} bytes")
        if self.capacity_bytes < 3 * self.segment_bytes:
            raise Invalid(f"a WAL has at least 3 segments: {self.capacity_bytes} < 3 × {self.segment_bytes} bytes")

"""What a consumer of a classic group sends as its metadata."""

import struct


def subscription(*topics: str, version: int = 1, rest: bytes = b"\xff\xff\xff\xff\x00\x00\x00\x00") -> bytes:
    """After the topics: no user data, and no partitions that it owns."""
    names = b"".join(struct.pack(">h", len(name.encode())) + name.encode() for name in topics)
    return struct.pack(">hi", version, len(topics)) + names + rest

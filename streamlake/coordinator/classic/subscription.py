"""The topics to which the consumers of a classic group subscribe: the only thing that a coordinator reads in metadata.

Metadata of consumers (protocol type `consumer`) begin with a version and an array of topics, in all versions; what
follows does not matter here. The members of a group nearly always have the same array, which is then read once.
"""

import struct
from collections.abc import Iterable

NAMES_MAX = 20_000  # that are read for one group: a few milliseconds

_HEAD = struct.Struct(">hi")  # version, number of topics
_LENGTH = struct.Struct(">h")
_VERSION_BYTES = 2


def topics_of(metadata: Iterable[bytes]) -> frozenset[str] | None:
    """All topics that these members name together; None if one is not of that form, or there are too many names."""
    topics: set[str] = set()
    seen, names = b"", 0
    for each in metadata:
        if seen and each.startswith(seen, _VERSION_BYTES):
            continue
        try:
            version, count = _HEAD.unpack_from(each)
            names += count
            if version < 0 or count < 0 or names > NAMES_MAX:
                return None
            at = _HEAD.size
            for _ in range(count):
                (length,) = _LENGTH.unpack_from(each, at)
                at += _LENGTH.size + length
                if length < 0 or at > len(each):
                    return None
                topics.add(str(each[at - length : at], "utf-8", "replace"))
        except struct.error:
            return None
        seen = each[_VERSION_BYTES:at]
    return frozenset(topics)

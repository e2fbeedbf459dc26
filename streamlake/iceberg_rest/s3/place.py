"""Folders of buckets, and which keys are below them."""

import re
from dataclasses import dataclass

_URL = re.compile(r"s3[an]?://(?P<bucket>[^/]+)(?:/(?P<key>.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """`prefix` ends with a slash; it is empty for a whole bucket."""

    bucket: str
    prefix: str

    def holds(self, key: str) -> bool:
        return key.startswith(self.prefix) and is_plain(key)

    def is_below(self, other: "Place") -> bool:
        return self != other and self.is_within(other)

    def is_within(self, other: "Place") -> bool:
        return self.bucket == other.bucket and self.prefix.startswith(other.prefix)


def place_of(url: str) -> Place | None:
    """Of `s3://bucket/folder`, with or without a slash at the end; None for what is not S3, or not plain."""
    found = _URL.fullmatch(url)
    if found is None:
        return None
    key = (found["key"] or "").removesuffix("/")
    if key and not is_plain(key):
        return None
    return Place(found["bucket"], f"{key}/" if key else "")


def is_plain(key: str) -> bool:
    """A store that takes keys for paths must not find its way out of a folder."""
    return all(part not in ("", ".", "..") for part in key.split("/")) and key.isprintable()

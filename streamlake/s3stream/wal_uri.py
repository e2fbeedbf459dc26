"""Which WAL a broker writes to, as a URI: in its configuration, and in the metadata store for whoever recovers it.

    file:///dir                  a directory that only this machine has (the embedded default)
    file:///dir?shared=true      a directory that several machines mount: others may recover it
    object+s3://bucket/prefix    objects under wal/ in this store (the default of a cluster); object+file:///dir too

Short forms, for configurations: `file` and `object` stand for the broker's own data directory and object store, and
the URL of a bucket alone for object+URL.
"""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from streamlake.core.errors import Invalid

OBJECT = "object+"


@dataclass(frozen=True, slots=True)
class WalUri:
    kind: Literal["file", "object"]
    place: str  # an absolute directory, or the URL of an object store
    shared: bool = False

    @property
    def continues(self) -> bool:
        """True if the next life of the broker goes on where this one stopped. Where others could write, it does not:
        its former life is drained, as a dead broker's WAL is."""
        return self.kind == "file" and not self.shared

    def __str__(self) -> str:
        if self.kind == "object":
            return OBJECT + self.place
        return f"file://{self.place}" + ("?shared=true" if self.shared else "")


def parse(text: str, data_dir: str, store_url: str) -> WalUri:
    """Invalid if it is none of the forms above. `data_dir` is absolute."""
    if text == "file":
        return WalUri("file", f"{data_dir}/wal")
    if text == "object":
        return WalUri("object", store_url)
    if text.startswith("file://"):
        return _file(text)
    place = text.removeprefix(OBJECT)
    parts = urlsplit(place)
    local = text.startswith(OBJECT) and parts.scheme == "file" and parts.path.startswith("/") and not parts.netloc
    if local or (parts.netloc and parts.scheme not in ("file", "")):
        return WalUri("object", place.rstrip("/"))
    raise Invalid(f"{text!r} is no WAL: say file, object, file:///directory or s3://bucket/prefix")


def _file(text: str) -> WalUri:
    parts = urlsplit(text)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    shared = options.pop("shared", "false")
    if parts.netloc or not parts.path.startswith("/") or options or shared not in ("true", "false"):
        raise Invalid(f"{text!r} is no WAL: say file:///directory, or file:///directory?shared=true if others mount it")
    return WalUri("file", parts.path.rstrip("/") or "/", shared == "true")

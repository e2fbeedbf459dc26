"""The WAL of a broker as a URI: in its configuration, and in the metadata store for the broker that recovers it.

    file:///dir                  a directory that only this machine has (the embedded default)
    file:///dir?shared=true      a directory that several machines mount: others may recover it
    object+s3://bucket/prefix    objects under wal/ in this store (the default of a cluster); object+file:///dir too

`file` and `object` stand for the broker's own data directory and object store. They are stored like that: a data
directory that was moved takes its WAL along, and one that was copied never reaches into the original. In configurations
the URL of a bucket alone stands for object+URL.
"""

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from streamlake.core.errors import Invalid

OBJECT = "object+"


@dataclass(frozen=True, slots=True)
class WalUri:
    kind: Literal["file", "object"]
    place: str  # an absolute directory, or the URL of an object store
    shared: bool = False
    text: str = field(default="", compare=False)  # as it is stored

    @property
    def continues(self) -> bool:
        """True if the next life of the broker goes on where this one stopped. Where others could write, it does not:
        its previous life is drained, as a dead broker's WAL is."""
        return self.kind == "file" and not self.shared

    def __str__(self) -> str:
        return self.text


def parse(text: str, data_dir: str, store_url: str) -> WalUri:
    """Invalid if it is none of the forms above. `data_dir` is absolute."""
    if text in ("file", f"file://{data_dir}/wal"):
        return WalUri("file", f"{data_dir}/wal", text="file")
    if text in ("object", OBJECT + store_url, store_url):
        return WalUri("object", store_url, text="object")
    if text.startswith("file://"):
        return _file(text)
    place = text.removeprefix(OBJECT)
    parts = urlsplit(place)
    local = text.startswith(OBJECT) and parts.scheme == "file" and parts.path.startswith("/") and not parts.netloc
    if local or (parts.netloc and parts.scheme not in ("file", "")):
        place = place.rstrip("/")
        return WalUri("object", place, text=OBJECT + place)
    raise Invalid(f"{text!r} is not a valid WAL: use file, object, file:///directory or s3://bucket/prefix")


def _file(text: str) -> WalUri:
    parts = urlsplit(text)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    shared = options.pop("shared", "false")
    if parts.netloc or not parts.path.startswith("/") or options or shared not in ("true", "false"):
        raise Invalid(
            f"{text!r} is not a valid WAL: use file:///directory, or file:///directory?shared=true if others mount it"
        )
    place = parts.path.rstrip("/") or "/"
    return WalUri("file", place, shared == "true", f"file://{place}" + ("?shared=true" if shared == "true" else ""))

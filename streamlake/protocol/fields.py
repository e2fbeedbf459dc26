"""Reads the wire facts that tools/gen_messages.py wrote into the annotations of a message class.

    topics: Annotated[tuple[Topic, ...] | None, "[]struct 1+ null=2-7 tag=0"] = ()

is an array of the struct Topic, in version 1 and newer, null allowed in 2 to 7, a tagged field (KIP-482) with tag 0.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import msgspec
from msgspec import Struct

from streamlake.protocol.wire import FIXED_FORMATS

_NO_VERSIONS = range(0)
_ALL_VERSIONS = 1 << 15  # a version is an int16


@dataclass(frozen=True, slots=True)
class Field:
    owner: str  # name of the class that has it, for error messages
    name: str
    kind: str  # of the element, if it is an array
    is_array: bool
    struct: type[Struct] | None
    versions: range
    null_versions: range
    tag: int | None
    default: Any

    @property
    def format(self) -> str | None:
        """The struct module's format character of a kind of fixed size, else None."""
        return FIXED_FORMATS.get(self.kind)

    @property
    def where(self) -> str:
        return f"{self.owner}.{self.name}"


@functools.cache
def fields_of(message: type[Struct]) -> tuple[Field, ...]:
    """The fields of a generated class, in wire order."""
    return tuple(_field(message.__name__, info) for info in msgspec.structs.fields(message))


def fields_at(message: type[Struct], version: int) -> tuple[Field, ...]:
    return tuple(f for f in fields_of(message) if version in f.versions)


def _field(owner: str, info: msgspec.structs.FieldInfo) -> Field:
    kind, versions, *options = info.type.__metadata__[0].split()
    option = dict(o.split("=") for o in options)
    return Field(
        owner=owner,
        name=info.name,
        kind=kind.removeprefix("[]"),
        is_array=kind.startswith("[]"),
        struct=next(_structs_in(info.type), None),
        versions=_versions(versions),
        null_versions=_versions(option["null"]) if "null" in option else _NO_VERSIONS,
        tag=int(option["tag"]) if "tag" in option else None,
        default=info.default,
    )


def _versions(text: str) -> range:
    """ "3+", "0-7" or "5"."""
    low, _, high = text.rstrip("+").partition("-")
    return range(int(low), _ALL_VERSIONS if text.endswith("+") else int(high or low) + 1)


def _structs_in(annotation: Any) -> Iterator[type[Struct]]:
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        yield annotation
    for part in get_args(annotation):
        yield from _structs_in(part)

"""The port of a kind of schema: what kinds.py lists."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from streamlake.registry.levels import Level


@dataclass(frozen=True, slots=True)
class File:
    """The text of a schema that others refer to, and what its kind made of it."""

    text: str
    compiled: bytes | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    """`canonical`: equal for schemas that are the same but for spelling. `compiled`: see SchemaRow."""

    text: str
    canonical: str
    compiled: bytes | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A registered schema with all that it refers to, directly or not, by name."""

    text: str
    compiled: bytes | None = None
    files: Mapping[str, File] = field(default_factory=dict)


Parse = Callable[[str, Mapping[str, File], bool], Parsed]  # text, files by name, normalize
Compare = Callable[[Level, Document, Sequence[tuple[int, Document]]], list[str]]  # level, new, earlier by version


@dataclass(frozen=True, slots=True)
class Kind:
    """All may take long, so call them through an Executor. `parse` raises Invalid and Unavailable; `incompatibilities`
    is as in registry.levels, and raises Invalid; `serialized` is the schema as `format=serialized` shows it."""

    parse: Parse
    incompatibilities: Compare
    serialized: Callable[[Document], str]

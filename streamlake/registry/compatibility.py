"""May this schema follow those? Avro's resolution rules under Confluent's compatibility levels.

BACKWARD: who reads with the new schema understands what was written with the one before. FORWARD: who still reads with
the one before understands what is written with the new one. FULL: both. _TRANSITIVE: not only the one before, but all.
The rules themselves (defaults, promotions, unions, enums, aliases, recursion) are Apache's `avro.compatibility`.
Call it through an Executor: large schemas and long histories take milliseconds.
"""

from collections.abc import Sequence
from enum import Enum

import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType, SchemaIncompatibilityType

from streamlake.core.errors import Invalid
from streamlake.registry.avro_schema import read_schema

KINDS = {
    SchemaIncompatibilityType.name_mismatch: "the name differs and no alias leads to the writer's",
    SchemaIncompatibilityType.fixed_size_mismatch: "the size differs",
    SchemaIncompatibilityType.missing_enum_symbols: "the reader lacks symbols of the writer and has no default",
    SchemaIncompatibilityType.reader_field_missing_default_value: "the reader has fields without a default that the "
    "writer lacks",
    SchemaIncompatibilityType.type_mismatch: "types differ",
    SchemaIncompatibilityType.missing_union_branch: "the reader's union lacks a branch for what the writer may write",
}


class Level(Enum):
    NONE = "NONE"
    BACKWARD = "BACKWARD"
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD = "FORWARD"
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    FULL = "FULL"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"

    @property
    def backward(self) -> bool:
        return self.value.startswith(("BACKWARD", "FULL"))

    @property
    def forward(self) -> bool:
        return self.value.startswith(("FORWARD", "FULL"))

    @property
    def transitive(self) -> bool:
        return self.value.endswith("_TRANSITIVE")


DEFAULT_LEVEL = Level.BACKWARD


def incompatibilities(level: Level, candidate: str, earlier: Sequence[tuple[int, str]]) -> list[str]:
    """What speaks against `candidate`, one message for each version and direction; none: it is compatible.

    `earlier` are (version, canonical text), oldest first. Invalid if the schemas nest too deeply to be compared."""
    if level is Level.NONE or not earlier:
        return []
    new = read_schema(candidate)
    found = []
    for version, text in reversed(earlier if level.transitive else earlier[-1:]):
        old = read_schema(text)
        if level.backward and (why := _cannot_read(reader=new, writer=old)):
            found.append(f"the new schema cannot read data written with version {version}: {why}")
        if level.forward and (why := _cannot_read(reader=old, writer=new)):
            found.append(f"version {version} cannot read data written with the new schema: {why}")
    return found


def _cannot_read(reader: avro.schema.Schema, writer: avro.schema.Schema) -> str:
    try:
        checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
        result = checker.get_compatibility(reader, writer)
    except RecursionError:
        raise Invalid("the schemas refer to each other too deeply to be compared") from None
    if result.compatibility is SchemaCompatibilityType.compatible:
        return ""
    kinds = dict.fromkeys(KINDS[kind] for kind in result.incompatibilities)
    places = sorted(result.locations - {"/"}) or ["/"]
    return f"{'; '.join(kinds)} ({'; '.join(sorted(result.messages))}) at {', '.join(places)}"

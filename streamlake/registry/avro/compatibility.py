"""May this schema follow those? Avro's resolution rules under Confluent's compatibility levels.

The rules themselves (defaults, promotions, unions, enums, aliases, recursion) are Apache's `avro.compatibility`.
Call it through an Executor: large schemas and long histories take milliseconds.
"""

from collections.abc import Sequence

import avro.schema
from avro.compatibility import (
    ReaderWriterCompatibilityChecker,
    SchemaCompatibilityResult,
    SchemaCompatibilityType,
    SchemaIncompatibilityType,
    incompatible,
)

from streamlake.core.errors import Invalid
from streamlake.registry import levels
from streamlake.registry.avro.schema import read_schema
from streamlake.registry.levels import Level

FIELDS_TOLD_MAX = 20  # of one record; more that are wrong would not be read

KINDS = {
    SchemaIncompatibilityType.name_mismatch: "the name differs and no alias leads to the writer's",
    SchemaIncompatibilityType.fixed_size_mismatch: "the size differs",
    SchemaIncompatibilityType.missing_enum_symbols: "the reader lacks symbols of the writer and has no default",
    SchemaIncompatibilityType.reader_field_missing_default_value: "the reader has fields without a default that the "
    "writer lacks",
    SchemaIncompatibilityType.type_mismatch: "types differ",
    SchemaIncompatibilityType.missing_union_branch: "the reader's union lacks a branch for what the writer may write",
}


def incompatibilities(level: Level, candidate: str, earlier: Sequence[tuple[int, str]]) -> list[str]:
    """What speaks against `candidate`, as registry.levels says. `earlier` are (version, canonical text), oldest first.
    Invalid if the schemas nest too deeply to be compared."""
    if level is Level.NONE or not earlier:
        return []
    compared = earlier if level.transitive else earlier[-1:]
    return levels.incompatibilities(
        level, read_schema(candidate), [(version, read_schema(text)) for version, text in compared], _cannot_read
    )


def _cannot_read(reader: avro.schema.Schema, writer: avro.schema.Schema) -> str:
    try:
        result = _Checker().get_compatibility(reader, writer)  # type: ignore[no-untyped-call]
    except RecursionError:
        raise Invalid("the schemas refer to each other too deeply to be compared") from None
    if result.compatibility is SchemaCompatibilityType.compatible:
        return ""
    kinds = dict.fromkeys(KINDS[kind] for kind in result.incompatibilities)
    places = sorted(result.locations - {"/"}) or ["/"]
    return f"{'; '.join(kinds)} ({'; '.join(sorted(result.messages))}) at {', '.join(places)}"


class _Checker(ReaderWriterCompatibilityChecker):
    """Apache's, but it looks at a record's fields in one pass: theirs makes a table of all the writer's fields for each
    of the reader's, and copies all that was found wrong before; a second for 2,000 fields."""

    def check_reader_writer_record_fields(
        self, reader: avro.schema.RecordSchema, writer: avro.schema.RecordSchema, location: list[str]
    ) -> SchemaCompatibilityResult:
        theirs = writer.fields_dict
        wrong: list[SchemaCompatibilityResult] = []
        for number, field in enumerate(reader.fields):
            where = [*location, "fields", str(number)]
            names = (field.name, *(field.props.get("aliases") or ()))
            of_writer = next((theirs[name] for name in names if name in theirs), None)
            if of_writer is not None:
                result = self.get_compatibility(field.type, of_writer.type, "type", where)
                if result.compatibility is SchemaCompatibilityType.incompatible:
                    wrong.append(result)
            elif not field.has_default:
                missing = SchemaIncompatibilityType.reader_field_missing_default_value
                wrong.append(incompatible(missing, field.name, where))
            if len(wrong) == FIELDS_TOLD_MAX:
                break
        if not wrong:
            return SchemaCompatibilityResult(SchemaCompatibilityType.compatible)
        return SchemaCompatibilityResult(
            SchemaCompatibilityType.incompatible,
            [kind for result in wrong for kind in result.incompatibilities],
            set().union(*(result.messages for result in wrong)),
            set().union(*(result.locations for result in wrong)),
        )

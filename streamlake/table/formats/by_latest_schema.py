"""convert.*.type = by_latest_schema: values that name no schema, each decoded with the newest one of a subject.

What is newest is asked once a round: all its records were in the log before, so whoever registers a schema and then
writes with it is understood. Records of older schemas that come later are read with the newer one, too: right where
the format allows it (Protobuf, JSON), and for Avro only while writers change their schema together.
"""

from dataclasses import replace
from typing import Any

from streamlake.core.errors import Invalid, NotFound, Unavailable
from streamlake.table.formats.converted import Converted, Reason, RowError, row_errors, row_numbers
from streamlake.table.formats.port import Convert, Schemas


def converter(subject: str, message: str) -> Convert:
    """`message`: the full name of a Protobuf message; "" for the first of the schema."""

    def convert(column: Any, reason: Reason, schemas: Schemas) -> Converted:
        """A null is in no group. Raises Unavailable, also while the subject has no schema: then no record can be
        judged. Raises Invalid for a message that the schema does not have: the config must be changed."""
        rows = row_numbers(len(column))
        if column.null_count:
            rows = rows.filter(column.is_valid())
        if not len(rows):
            return Converted(())
        try:
            id, reader = schemas.latest(subject)
        except NotFound as error:
            raise Unavailable(f"{error}: the table waits until a schema is registered there") from None
        except Invalid as error:
            return _unsupported(rows, f"the latest schema of subject {subject}: {error}")
        try:
            values = reader.of_message(message)
        except Invalid as error:
            return _unsupported(rows, f"schema {id}: {error}")
        except NotFound as error:
            raise Invalid(
                f"the latest schema of subject {subject}, {id}: {error}; set "
                "streamlake.table.convert.value.by_latest_schema.message.full.name (or that of the key)"
            ) from None
        read = values.read(column, rows, 0)
        errors: list[RowError] = []
        for row, why in read.errors:
            errors += row_errors([row], reason, f"not a value of schema {id}: {why}")
        return Converted(tuple(replace(group, schema_id=id) for group in read.groups), tuple(errors))

    return convert


def _unsupported(rows: Any, why: str) -> Converted:
    return Converted((), tuple(row_errors(rows.to_pylist(), Reason.UNSUPPORTED_SCHEMA, why)))

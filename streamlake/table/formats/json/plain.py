"""convert.value.type = json: JSON objects without a schema; their columns are inferred (infer.py).

The kernel tells which values have keys that might have columns; they are looked at one by one, the columns are added,
and all values are read again. So a round in which nothing is new reads each value once, in C.
"""

from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from streamlake.table.formats.converted import Converted, Group, Reason, row_errors, row_numbers
from streamlake.table.formats.json.convert import codec_of
from streamlake.table.formats.json.infer import Inference
from streamlake.table.formats.json.native import Compiled
from streamlake.table.formats.port import Convert, Schemas
from streamlake.table.formats.twin import Codec

# Of the values of a piece that might have new columns. If none of so many has, they are of the kind that never has:
# large numbers, objects of empty objects.
LEARNED_MAX = 256
READINGS_MAX = 20  # of one piece; keys that are new after that wait for the next, and their values are in the rest


def converter(inference: Inference) -> Convert:
    """For one round, which `inference` remembers."""
    return _Plain(inference).convert


class _Plain:
    """Implements Convert."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._codec = codec_of(inference.plan())

    def convert(self, column: Any, reason: Reason, schemas: Schemas) -> Converted:
        """A null is in no group."""
        rows = row_numbers(len(column))
        if column.null_count:
            rows = rows.filter(column.is_valid())
        if not len(rows):
            return Converted(())
        group, errors = self._read(column, rows)
        found = tuple(error for row, why in errors for error in row_errors([row], reason, why))
        rest = group.values.field(group.values.type.num_fields - 1)
        return Converted((group,), found, len(rest) - rest.null_count)

    def _read(self, column: Any, rows: Any) -> tuple[Group, list[tuple[int, str]]]:
        if not isinstance(self._codec.native, Compiled):
            self._learn(column, rows, len(rows))
            return self._codec.read(column, rows, 0)
        for _ in range(READINGS_MAX):
            found = _native(self._codec).take(column, rows, 0)
            if not self._learn(column, pa.concat_arrays([found.novel, found.refused]), LEARNED_MAX):
                break
        else:
            found = _native(self._codec).take(column, rows, 0)
        return self._codec.finish(column, 0, found.rows, found.refused, found.values)

    def _learn(self, column: Any, rows: Any, most: int) -> bool:
        """Whether the first `most` of some rows have new columns."""
        if not len(rows) or self._inference.is_full:
            return False
        first = rows.take(pc.sort_indices(rows)).slice(0, most)
        grew = [self._inference.learn(value) for value in islice(column.take(first).to_pylist(), most)]
        if any(grew):
            self._codec = codec_of(self._inference.plan())
        return any(grew)


def _native(codec: Codec) -> Compiled:
    assert isinstance(codec.native, Compiled)
    return codec.native

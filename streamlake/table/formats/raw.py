"""convert.*.type = raw: the bytes as they are."""

from typing import Any

import pyarrow as pa
from pyiceberg.types import BinaryType

from streamlake.table.formats.converted import Converted, Group, Reason, row_numbers
from streamlake.table.formats.port import Schemas


def convert(column: Any, reason: Reason, schemas: Schemas) -> Converted:
    """A binary array as one group, nulls included; nothing can be wrong with bytes."""
    return Converted((Group(BinaryType(), row_numbers(len(column)), column.cast(pa.large_binary())),))

"""convert.*.type = raw: the bytes as they are."""

from typing import Any

import pyarrow as pa
from pyiceberg.types import BinaryType

from streamlake.table.formats.converted import Converted, Group, row_numbers


def convert(column: Any) -> Converted:
    """A binary array as one group, nulls included; nothing can be wrong with bytes."""
    return Converted((Group(BinaryType(), row_numbers(len(column)), column.cast(pa.large_binary())),))

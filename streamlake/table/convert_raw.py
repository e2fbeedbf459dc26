"""convert.*.type = raw: the bytes as they are."""

from typing import Any

import pyarrow as pa
from pyiceberg.types import BinaryType

from streamlake.table.converted import Converted, Group


def convert(column: Any) -> Converted:
    """A binary array as one group, nulls included; nothing can be wrong with bytes."""
    return Converted((Group(BinaryType(), pa.array(range(len(column)), pa.int64()), column.cast(pa.large_binary())),))

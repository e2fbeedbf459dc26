"""The two forms of a codec, twin and kernel, on the same values."""

from dataclasses import replace
from typing import Any

import pyarrow as pa

from streamlake.table.formats.converted import row_numbers
from streamlake.table.formats.twin import Codec


def twin_and_kernel(codec: Codec, bodies: list[bytes]) -> Any:
    """What each makes of values: (rows, values, errors); and the rows that the kernel took by itself."""
    column = pa.array([b"", *(b"?" + body for body in bodies)], pa.binary()).slice(1)
    rows = row_numbers(len(bodies))
    results = []
    for form in (replace(codec, native=None), codec):
        group, errors = form.read(column, rows, 1)
        group.values.validate(full=True)
        results.append((group.rows.to_pylist(), group.values, sorted(errors)))
    assert codec.native is not None
    taken, refused, values = codec.native.read(column, rows, 1)
    values.validate(full=True)
    assert sorted(taken.to_pylist() + refused.to_pylist()) == rows.to_pylist()
    return *results, taken.to_pylist()

"""What kernels take and give: buffers of Arrow."""

from typing import Any, TypeAlias

import pyarrow as pa

Buffers: TypeAlias = tuple[int, int, Any, Any, Any]  # of a column: length, nulls, validity or None, offsets, data


def int64s(block: Any) -> Any:
    """An int64 array of a kernel's block."""
    buffer = pa.py_buffer(block)
    return pa.Array.from_buffers(pa.int64(), buffer.size // 8, [None, buffer], 0)


def int64_bytes(numbers: Any) -> memoryview:
    """The values of an int64 array without nulls."""
    return memoryview(numbers.buffers()[1])[8 * numbers.offset : 8 * (numbers.offset + len(numbers))]

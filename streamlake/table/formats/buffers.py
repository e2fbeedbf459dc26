"""What kernels take and give: buffers of Arrow."""

from collections.abc import Sequence
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


def array_of(type: Any, column: Buffers, children: Sequence[Any] = ()) -> Any:
    """The array of this Arrow type that a kernel's column is; `children`: the arrays of what is inside, in order."""
    length, nulls, validity, offsets, data = column
    buffers = [None if validity is None else pa.py_buffer(validity)]
    if isinstance(type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(type, array_of(type.storage_type, column))
    if pa.types.is_map(type):
        children = [pa.StructArray.from_arrays(children, fields=[type.key_field, type.item_field])]
    if pa.types.is_map(type) or pa.types.is_large_list(type):
        buffers.append(pa.py_buffer(offsets))
    elif pa.types.is_large_string(type) or pa.types.is_large_binary(type):
        buffers += pa.py_buffer(offsets), pa.py_buffer(data)
    elif not pa.types.is_struct(type):
        buffers.append(pa.py_buffer(data))
    return pa.Array.from_buffers(type, length, buffers, nulls, children=list(children))

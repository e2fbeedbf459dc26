# A kernel reads some of the values of a binary array into columns: what it is given, and what has become of it. Each value
# is taken, or it is refused and leaves no trace in the columns.
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free

from streamlake.record.kernel cimport Column, Vec, free_column, push, take_column
from streamlake.table.formats.columns cimport SAMPLE_VALUES, make_room

cdef struct Reading:
    Py_buffer held[3]
    const int32_t* offsets  # of the array's first value on
    const uint8_t* data
    const int64_t* rows  # the numbers of the values to read
    int64_t count
    int64_t skip_bytes  # of each value
    Vec taken  # numbers of values, as those below
    Vec refused
    Column* columns
    int columns_count


cdef inline int begin_reading(
    Reading* reading, offsets, data, int64_t first_value, rows, int64_t skip_bytes, int columns_count
) except -1:
    """`reading` is all zeros. Buffers of int32, bytes and int64. Whatever comes of it, `end_reading` follows."""
    PyObject_GetBuffer(offsets, &reading.held[0], PyBUF_SIMPLE)
    PyObject_GetBuffer(data, &reading.held[1], PyBUF_SIMPLE)
    PyObject_GetBuffer(rows, &reading.held[2], PyBUF_SIMPLE)
    reading.offsets = <const int32_t*>reading.held[0].buf + first_value
    reading.data = <const uint8_t*>reading.held[1].buf
    reading.rows = <const int64_t*>reading.held[2].buf
    reading.count = reading.held[2].len // <Py_ssize_t>sizeof(int64_t)
    reading.skip_bytes = skip_bytes
    reading.columns = <Column*>calloc(columns_count + 1, sizeof(Column))
    if reading.columns == NULL:
        raise MemoryError
    reading.columns_count = columns_count
    return 0


cdef inline list take_columns(Reading* reading):
    """Each as take_column gives it."""
    cdef int i
    found = []
    for i in range(reading.columns_count):
        found.append(take_column(&reading.columns[i]))
    return found


cdef inline void end_reading(Reading* reading):
    cdef int i
    for i in range(3):
        PyBuffer_Release(&reading.held[i])
    for i in range(reading.columns_count):
        free_column(&reading.columns[i])
    free(reading.columns)
    free(reading.taken.data)
    free(reading.refused.data)


# --- value number `i` of those to read


cdef inline const uint8_t* value_start(const Reading* reading, int64_t i) noexcept nogil:
    """Behind its end if the value is shorter than what is skipped."""
    return reading.data + reading.offsets[reading.rows[i]] + reading.skip_bytes


cdef inline const uint8_t* value_end(const Reading* reading, int64_t i) noexcept nogil:
    return reading.data + reading.offsets[reading.rows[i] + 1]


cdef inline int took(Reading* reading, int64_t i) noexcept nogil:
    return push(&reading.taken, &reading.rows[i], sizeof(int64_t))


cdef inline int refuse(Reading* reading, int64_t i) noexcept nogil:
    return push(&reading.refused, &reading.rows[i], sizeof(int64_t))


cdef inline void look_ahead(Reading* reading, int64_t i) noexcept nogil:
    """Call it before each value: after the first ones there is room made for all."""
    cdef const int32_t* offsets = reading.offsets
    if i == SAMPLE_VALUES:
        make_room(
            reading.columns,
            reading.columns_count,
            reading.count,
            offsets[reading.rows[reading.count - 1] + 1] - offsets[reading.rows[0]],
        )

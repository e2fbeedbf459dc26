# cython: language_level=3
"""The records of a batch in C: checked for Produce, and as Arrow columns for the table path.

The twin is decode.parse_records, and the referee: what `check` or `Rows.add` refuses, the twin reads again and says
what is wrong with it. So only this must hold: what is taken here, the twin takes too, and reads the same. Every length
is checked against the end of its record before anything is read; the payload may be hostile.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport INT32_MAX, INT64_MAX, INT64_MIN, int8_t, int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset


cdef enum:
    # A smaller payload is checked under the GIL: to take it back would cost the event loop more than it gives.
    UNLOCKED_BYTES = 262144


cdef class Block:
    """Memory from malloc as a read-only buffer, for pa.py_buffer."""

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self._vec.data, <Py_ssize_t>self._vec.size, 1, flags)

    def __dealloc__(self):
        free(self._vec.data)


cdef Block take(Vec* vec):
    """The bytes of `vec`, which is empty then."""
    cdef Block block = Block.__new__(Block)
    # Arrow wants an address, even of nothing; and what was reserved in vain is given back.
    if (vec.data == NULL or vec.capacity > vec.size + vec.size // 8) and resize(vec, vec.size + 1) != OK:
        raise MemoryError
    block._vec = vec[0]
    memset(vec, 0, sizeof(Vec))
    return block


cdef tuple take_column(Column* column):
    """(length, nulls, validity or None, offsets, data); the column is empty then."""
    validity = take(&column.validity)
    found = (column.length, column.nulls, validity if column.nulls else None, take(&column.offsets), take(&column.data))
    column.length = column.nulls = 0
    return found


cdef void free_column(Column* column) noexcept nogil:
    free(column.validity.data)
    free(column.offsets.data)
    free(column.data.data)
    memset(column, 0, sizeof(Column))


# Where a column stood, to go back to when a record turns out bad half-way.
cdef struct Mark:
    int64_t length
    int64_t nulls
    size_t offsets
    size_t data


cdef Mark mark(const Column* column) noexcept nogil:
    return Mark(column.length, column.nulls, column.offsets.size, column.data.size)


cdef void rewind(Column* column, Mark to) noexcept nogil:
    column.length = to.length
    column.nulls = to.nulls
    if column.validity.data != NULL:
        column.validity.size = <size_t>((to.length + 7) >> 3)
    column.offsets.size = to.offsets
    column.data.size = to.data


cdef int push_bytes(Column* column, const uint8_t* data, int64_t size) noexcept nogil:
    """A value of `size` bytes, or null for -1."""
    cdef int32_t end
    if size > 0:
        if <int64_t>column.data.size + size > INT32_MAX:
            return REFUSED
        if push(&column.data, data, <size_t>size) != OK:
            return NO_MEMORY
    end = <int32_t>column.data.size
    if push(&column.offsets, &end, sizeof(end)) != OK or count_value(column, size >= 0) != OK:
        return NO_MEMORY
    return OK


cdef const uint8_t* field(
    const uint8_t* at, const uint8_t* end, const uint8_t** data, int64_t* size
) noexcept nogil:
    """Bytes with a length before them, -1 for null: where they end, or NULL if not before `end`."""
    cdef uint64_t number
    at = varint(at, end, &number)
    if at == NULL:
        return NULL
    data[0] = at
    if number == 1:
        size[0] = -1
        return at
    if number & 1 or (number >> 1) > <uint64_t>(end - at):
        return NULL
    size[0] = <int64_t>(number >> 1)
    return at + size[0]


cdef int read_headers(const uint8_t** position, const uint8_t* end, Lists* lists) noexcept nogil:
    """The headers of a record, which end with it; `lists` may be NULL."""
    cdef const uint8_t* at = position[0]
    cdef const uint8_t* data
    cdef int64_t size
    cdef uint64_t number
    cdef int outcome
    at = varint(at, end, &number)
    if at == NULL or number & 1 or number > <uint64_t>(end - at):  # a header takes two bytes at least
        return REFUSED
    for _ in range(<int64_t>(number >> 1)):
        at = field(at, end, &data, &size)
        if at == NULL or size < 0:
            return REFUSED
        if lists != NULL:
            outcome = push_bytes(&lists.header_key, data, size)
            if outcome != OK:
                return outcome
        at = field(at, end, &data, &size)
        if at == NULL:
            return REFUSED
        if lists != NULL:
            outcome = push_bytes(&lists.header_value, data, size)
            if outcome != OK:
                return outcome
    position[0] = at
    return OK


cdef int take_record(
    Lists* lists,
    int64_t offset,
    int64_t timestamp,
    bint is_append_time,
    const uint8_t* key,
    int64_t key_size,
    const uint8_t* value,
    int64_t value_size,
) noexcept nogil:
    cdef int8_t kind = is_append_time
    cdef int32_t headers
    cdef int outcome
    outcome = push_bytes(&lists.key, key, key_size)
    if outcome == OK:
        outcome = push_bytes(&lists.value, value, value_size)
    if outcome != OK:
        return outcome
    if lists.header_key.length > INT32_MAX:
        return REFUSED
    headers = <int32_t>lists.header_key.length
    if (
        push(&lists.offsets, &offset, sizeof(offset)) != OK
        or push(&lists.timestamps, &timestamp, sizeof(timestamp)) != OK
        or push(&lists.kinds, &kind, sizeof(kind)) != OK
        or push(&lists.header_offsets, &headers, sizeof(headers)) != OK
    ):
        return NO_MEMORY
    return OK


cdef int walk(
    const uint8_t* at, size_t size, const Claims* claims, Lists* lists, int64_t* least_time, int64_t* most_time
) noexcept nogil:
    """All records of a payload, which they must fill exactly. `lists` is NULL to check only."""
    cdef const uint8_t* stop = at + size
    cdef const uint8_t* end
    cdef const uint8_t* key
    cdef const uint8_t* value
    cdef int64_t key_size, value_size, delta, timestamp, least_delta = 0
    cdef uint64_t number
    cdef Lists* into
    cdef int outcome
    if claims.base_offset > INT64_MAX - claims.last_delta:
        return REFUSED
    for _ in range(claims.count):
        at = varint(at, stop, &number)
        if at == NULL or number & 1 or (number >> 1) > <uint64_t>(stop - at):
            return REFUSED
        end = at + (number >> 1)
        if at == end:
            return REFUSED
        at = varint(at + 1, end, &number)  # after a byte of attributes, unused
        if at == NULL:
            return REFUSED
        timestamp = unzigzag(number)
        if claims.is_append_time:
            timestamp = claims.append_time
        elif timestamp > 0 and claims.base_timestamp > INT64_MAX - timestamp:
            return REFUSED
        elif timestamp < 0 and claims.base_timestamp < INT64_MIN - timestamp:
            return REFUSED
        else:
            timestamp += claims.base_timestamp
        at = varint(at, end, &number)
        if at == NULL or number & 1 or (number >> 1) > <uint64_t>INT32_MAX:
            return REFUSED
        delta = <int64_t>(number >> 1)
        if delta < least_delta or delta > claims.last_delta:
            return REFUSED
        least_delta = delta + 1
        at = field(at, end, &key, &key_size)
        if at == NULL:
            return REFUSED
        at = field(at, end, &value, &value_size)
        if at == NULL:
            return REFUSED
        into = lists if claims.base_offset + delta >= claims.first_offset else NULL
        outcome = read_headers(&at, end, into)
        if outcome != OK:
            return outcome
        if at != end:
            return REFUSED
        if timestamp < least_time[0]:
            least_time[0] = timestamp
        if timestamp > most_time[0]:
            most_time[0] = timestamp
        if into != NULL:
            outcome = take_record(
                into, claims.base_offset + delta, timestamp, claims.is_append_time, key, key_size, value, value_size
            )
            if outcome != OK:
                return outcome
    return OK if at == stop else REFUSED


cdef Claims claims_of(header, int64_t first_offset):
    cdef Claims claims
    claims.base_offset = header.base_offset
    claims.base_timestamp = header.base_timestamp
    claims.append_time = header.max_timestamp
    claims.is_append_time = header.is_log_append_time
    claims.last_delta = header.last_offset_delta
    claims.count = header.count
    claims.first_offset = first_offset
    return claims


def check(header, payload):
    """(least, largest timestamp) of the records of an uncompressed payload, at least one; None: ask the twin."""
    cdef Claims claims = claims_of(header, 0)
    cdef int64_t least_time = INT64_MAX, most_time = INT64_MIN
    cdef Py_buffer view
    cdef int outcome
    if claims.count <= 0:
        return None
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    if view.len < UNLOCKED_BYTES:
        outcome = walk(<const uint8_t*>view.buf, <size_t>view.len, &claims, NULL, &least_time, &most_time)
    else:
        with nogil:
            outcome = walk(<const uint8_t*>view.buf, <size_t>view.len, &claims, NULL, &least_time, &most_time)
    PyBuffer_Release(&view)
    return (least_time, most_time) if outcome == OK else None


cdef class Rows:
    """Columns of records, filled batch by batch. For one thread at a time."""

    cdef Lists _lists

    def __cinit__(self, size_t values_bytes):
        """`values_bytes`: as much will be needed for values, about. Growing costs more than the rest together."""
        if reserve(&self._lists.value.data, values_bytes) != OK:
            raise MemoryError
        self._begin()

    def __dealloc__(self):
        free(self._lists.offsets.data)
        free(self._lists.timestamps.data)
        free(self._lists.kinds.data)
        free(self._lists.header_offsets.data)
        free_column(&self._lists.key)
        free_column(&self._lists.value)
        free_column(&self._lists.header_key)
        free_column(&self._lists.header_value)

    def __len__(self):
        return self._lists.key.length

    cdef int _begin(self) except -1:
        """Offsets begin with a zero."""
        cdef Lists* lists = &self._lists
        if (
            push_zeros(&lists.key.offsets, sizeof(int32_t)) != OK
            or push_zeros(&lists.value.offsets, sizeof(int32_t)) != OK
            or push_zeros(&lists.header_key.offsets, sizeof(int32_t)) != OK
            or push_zeros(&lists.header_value.offsets, sizeof(int32_t)) != OK
            or push_zeros(&lists.header_offsets, sizeof(int32_t)) != OK
        ):
            raise MemoryError
        return 0

    def add(self, header, payload, int64_t first_offset):
        """Take the records from `first_offset` on: how many; or None, and nothing was taken: ask the twin."""
        cdef Claims claims = claims_of(header, first_offset)
        cdef Lists* lists = &self._lists
        cdef Mark key = mark(&lists.key), value = mark(&lists.value)
        cdef Mark header_key = mark(&lists.header_key), header_value = mark(&lists.header_value)
        cdef int64_t least_time = INT64_MAX, most_time = INT64_MIN
        cdef Py_buffer view
        cdef int outcome
        PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
        with nogil:
            outcome = walk(<const uint8_t*>view.buf, <size_t>view.len, &claims, lists, &least_time, &most_time)
        PyBuffer_Release(&view)
        if outcome == OK:
            return lists.key.length - key.length
        rewind(&lists.key, key)
        rewind(&lists.value, value)
        rewind(&lists.header_key, header_key)
        rewind(&lists.header_value, header_value)
        lists.offsets.size = lists.timestamps.size = <size_t>key.length * sizeof(int64_t)
        lists.kinds.size = <size_t>key.length
        lists.header_offsets.size = <size_t>(key.length + 1) * sizeof(int32_t)
        if outcome == NO_MEMORY:
            raise MemoryError
        return None

    def take(self):
        """Everything since the last call, as buffers: offsets, timestamps, timestamp types, key and value columns (see
        take_column), offsets of the headers, and their keys and values."""
        cdef Lists* lists = &self._lists
        found = (
            take(&lists.offsets),
            take(&lists.timestamps),
            take(&lists.kinds),
            take_column(&lists.key),
            take_column(&lists.value),
            take(&lists.header_offsets),
            take_column(&lists.header_key),
            take_column(&lists.header_value),
        )
        self._begin()
        return found

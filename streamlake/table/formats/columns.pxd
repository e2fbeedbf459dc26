# What the kernels of formats do to columns, whatever the bytes are that the values come from. As in record/kernel.pxd
# nothing needs the GIL.
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcmp

from streamlake.record.kernel cimport NO_MEMORY, OK, REFUSED, Column, Vec, count_value, push, push_zeros, reserve

cdef enum:
    DECIMAL_BYTES = 16
    SAMPLE_VALUES = 256  # after so many there is room made for all
    FEW_KEYS = 8
    PROBES_MAX = 32


cdef inline int push_fixed(Column* column, const void* value, size_t size) noexcept nogil:
    if push(&column.data, value, size) != OK:
        return NO_MEMORY
    return count_value(column, True)


cdef inline int push_offset(Column* column, int64_t end) noexcept nogil:
    return push(&column.offsets, &end, sizeof(end))


cdef inline int push_bytes(Column* column, const uint8_t* data, size_t size) noexcept nogil:
    if push(&column.data, data, size) != OK or push_offset(column, <int64_t>column.data.size) != OK:
        return NO_MEMORY
    return count_value(column, True)


cdef inline void cut(Column* column, int64_t length) noexcept nogil:
    """Only the first `length` values are there. The caller cuts their offsets and data."""
    cdef int64_t i
    if column.validity.data != NULL:
        for i in range(length, column.length):
            column.nulls -= not (column.validity.data[i >> 3] >> (i & 7)) & 1
        column.validity.size = <size_t>((length + 7) >> 3)
    column.length = length


cdef inline void make_room(Column* columns, int columns_count, int64_t count, int64_t input_bytes) noexcept nogil:
    """Room for what the first SAMPLE_VALUES of `count` values let expect, because growing bit by bit costs more than
    reading. No more than for what fits the input, and no harm if it cannot be had."""
    cdef Column* column
    cdef size_t times = <size_t>(count // SAMPLE_VALUES) + 1
    cdef int i
    for i in range(columns_count):
        column = &columns[i]
        reserve(&column.offsets, min(column.offsets.size * times, <size_t>count * sizeof(int64_t)))
        reserve(&column.data, min(column.data.size * times, <size_t>(input_bytes + count * DECIMAL_BYTES)))


cdef inline int64_t key_start(const Column* keys, int64_t width, int64_t index) noexcept nogil:
    """Where a key begins, and the one before it ends. `width`: of each key; 0 if they vary in length."""
    return index * width if width else (<const int64_t*>keys.offsets.data)[index]


cdef inline bint same_key(const Column* keys, int64_t width, int64_t one, int64_t other) noexcept nogil:
    cdef int64_t start = key_start(keys, width, one), other_start = key_start(keys, width, other)
    cdef int64_t size = key_start(keys, width, one + 1) - start
    return size == key_start(keys, width, other + 1) - other_start and (
        size == 0 or memcmp(keys.data.data + start, keys.data.data + other_start, <size_t>size) == 0
    )


cdef inline int distinct(Vec* slots, const Column* keys, int64_t width, int64_t first) noexcept nogil:
    """REFUSED if a key from `first` on comes twice: only the twin knows which of its values counts. `slots`: a hash
    table, for maps of many keys."""
    cdef int64_t count = keys.length - first, one, other
    cdef int64_t* found
    cdef uint64_t hash, mask = 16
    cdef int probes
    if count <= FEW_KEYS:
        for one in range(first + 1, keys.length):
            for other in range(first, one):
                if same_key(keys, width, one, other):
                    return REFUSED
        return OK
    while mask < <uint64_t>count * 2:
        mask *= 2
    slots.size = 0
    if push_zeros(slots, mask * sizeof(int64_t)) != OK:
        return NO_MEMORY
    mask -= 1
    found = <int64_t*>slots.data
    for one in range(first, keys.length):
        hash = <uint64_t>0xCBF29CE484222325  # FNV-1a
        for other in range(key_start(keys, width, one), key_start(keys, width, one + 1)):
            hash = (hash ^ keys.data.data[other]) * <uint64_t>0x100000001B3
        hash ^= hash >> 32
        probes = 0
        while found[hash & mask]:
            probes += 1
            # Keys made to collide must not cost their square.
            if probes > PROBES_MAX or same_key(keys, width, one, found[hash & mask] - 1):
                return REFUSED
            hash += 1
        found[hash & mask] = one + 1
    return OK

# Growing C buffers that become Arrow's, shared by all kernels. All functions need no GIL; 0 is success, NO_MEMORY
# that malloc failed. Sizes are bytes.
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy, memset

cdef enum Outcome:
    OK = 0
    REFUSED = 1  # the bytes may be bad: the Python twin says what is wrong with them
    NO_MEMORY = 2

cdef struct Vec:
    uint8_t* data
    size_t size
    size_t capacity

# One Arrow column: `offsets` only if its values vary in length (or it is a list), `validity` from the first null on.
cdef struct Column:
    int64_t length
    int64_t nulls
    Vec validity
    Vec offsets
    Vec data


cdef inline int resize(Vec* vec, size_t capacity) noexcept nogil:
    cdef uint8_t* data = <uint8_t*>realloc(vec.data, capacity)
    if data == NULL:
        return NO_MEMORY
    vec.data = data
    vec.capacity = capacity
    return OK


cdef inline int reserve(Vec* vec, size_t more) noexcept nogil:
    """Room for `more` bytes after those that are there."""
    if vec.size + more <= vec.capacity:
        return OK
    return resize(vec, vec.size + more + vec.capacity + 64)


cdef inline int push(Vec* vec, const void* data, size_t size) noexcept nogil:
    if reserve(vec, size) != OK:
        return NO_MEMORY
    if size:  # memcpy of nothing to NULL is undefined
        memcpy(vec.data + vec.size, data, size)
    vec.size += size
    return OK


cdef inline int push_zeros(Vec* vec, size_t size) noexcept nogil:
    if reserve(vec, size) != OK:
        return NO_MEMORY
    if size:
        memset(vec.data + vec.size, 0, size)
    vec.size += size
    return OK


cdef inline int push_bit(Vec* bits, int64_t at, bint value) noexcept nogil:
    """Set bit `at`, the one after the last."""
    cdef uint8_t mask = <uint8_t>(1 << (at & 7))
    if <size_t>(at >> 3) >= bits.size:
        if reserve(bits, 1) != OK:
            return NO_MEMORY
        bits.data[bits.size] = 0
        bits.size += 1
    if value:
        bits.data[at >> 3] |= mask
    else:
        bits.data[at >> 3] &= <uint8_t>~mask
    return OK


cdef inline int count_value(Column* column, bint valid) noexcept nogil:
    """One more value: its validity. The caller pushes its data and offset."""
    if column.validity.data == NULL:
        if valid:
            column.length += 1
            return OK
        if reserve(&column.validity, <size_t>(column.length >> 3) + 1) != OK:
            return NO_MEMORY
        column.validity.size = <size_t>((column.length + 7) >> 3)
        memset(column.validity.data, 0xFF, column.validity.size)
    if push_bit(&column.validity, column.length, valid) != OK:
        return NO_MEMORY
    column.length += 1
    column.nulls += not valid
    return OK


cdef inline const uint8_t* varint(const uint8_t* at, const uint8_t* end, uint64_t* out) noexcept nogil:
    """The unsigned number at `at` and where it ends; NULL if `end` comes first or it has more than 64 bits."""
    cdef uint64_t number = 0
    cdef int shift = 0
    cdef uint8_t byte
    while at < end and shift < 70:
        byte = at[0]
        at += 1
        if shift == 63 and byte > 1:
            return NULL
        number |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            out[0] = number
            return at
        shift += 7
    return NULL


cdef inline int64_t unzigzag(uint64_t number) noexcept nogil:
    return <int64_t>(number >> 1) ^ -<int64_t>(number & 1)


cdef inline bint is_utf8(const uint8_t* at, size_t size) noexcept nogil:
    """By RFC 3629: no surrogates, nothing overlong, nothing above U+10FFFF."""
    cdef const uint8_t* end = at + size
    cdef uint64_t eights[4]
    cdef uint8_t lead
    while at < end:
        while end - at >= 32:
            memcpy(eights, at, 32)
            if (eights[0] | eights[1] | eights[2] | eights[3]) & <uint64_t>0x8080808080808080:
                break
            at += 32
        while end - at >= 8:
            memcpy(eights, at, 8)
            if eights[0] & <uint64_t>0x8080808080808080:
                break
            at += 8
        if at == end:
            return True
        lead = at[0]
        if lead < 0x80:
            at += 1
        elif 0xC2 <= lead <= 0xDF:
            if end - at < 2 or at[1] & 0xC0 != 0x80:
                return False
            at += 2
        elif 0xE0 <= lead <= 0xEF:
            if end - at < 3 or at[1] & 0xC0 != 0x80 or at[2] & 0xC0 != 0x80:
                return False
            if (lead == 0xE0 and at[1] < 0xA0) or (lead == 0xED and at[1] > 0x9F):
                return False
            at += 3
        elif 0xF0 <= lead <= 0xF4:
            if end - at < 4 or at[1] & 0xC0 != 0x80 or at[2] & 0xC0 != 0x80 or at[3] & 0xC0 != 0x80:
                return False
            if (lead == 0xF0 and at[1] < 0x90) or (lead == 0xF4 and at[1] > 0x8F):
                return False
            at += 4
        else:
            return False
    return True


# What the header of a batch says.
cdef struct Claims:
    int64_t base_offset
    int64_t base_timestamp
    int64_t append_time
    bint is_append_time
    int64_t last_delta
    int64_t count
    int64_t first_offset  # records before it are checked, but not taken


# Where records are taken to.
cdef struct Lists:
    Vec offsets
    Vec timestamps
    Vec kinds
    Column key
    Column value
    Vec header_offsets
    Column header_key
    Column header_value


cdef int walk(
    const uint8_t* at, size_t size, const Claims* claims, Lists* lists, int64_t* least_time, int64_t* most_time
) noexcept nogil


cdef class Block:
    cdef Vec _vec


cdef Block take(Vec* vec)
cdef tuple take_column(Column* column)
cdef void free_column(Column* column) noexcept nogil

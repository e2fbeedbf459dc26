# cython: cdivision=True
# Values of Avro's types that hold no others: each reader takes one from the bytes and pushes it to its column. Nothing
# is read before it is known to be there. What is REFUSED half-way is undone by kernel.pyx.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from streamlake.record.kernel cimport (
    NO_MEMORY,
    OK,
    REFUSED,
    Column,
    Vec,
    count_value,
    is_utf8,
    push_bit,
    unzigzag,
    varint,
)
from streamlake.table.formats.columns cimport DECIMAL_BYTES, push_bytes, push_fixed

cdef extern from *:
    """
    typedef __int128 streamlake_int128;

    /* What a hexadecimal digit stands for; NO_DIGIT for all other characters. */
    static const uint8_t streamlake_nibbles[256] = {
    #define X16 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16
        X16, X16, X16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 16, 16, 16, 16, 16,
        16, 10, 11, 12, 13, 14, 15, 16, 16, 16, 16, 16, 16, 16, 16, 16, X16,
        16, 10, 11, 12, 13, 14, 15, 16, 16, 16, 16, 16, 16, 16, 16, 16, X16,
        X16, X16, X16, X16, X16, X16, X16, X16
    #undef X16
    };
    """
    ctypedef long long int128_t "streamlake_int128"
    const uint8_t nibbles "streamlake_nibbles"[256]

# As in native.Op.
cdef enum:
    NOTHING = 0
    BOOLEAN = 1
    INT = 2
    LONG = 3
    FLOAT = 4
    DOUBLE = 5
    BYTES = 6
    TEXT = 7
    FIXED = 8
    DATE = 9
    TIME = 10
    TIMESTAMP = 11
    DECIMAL = 12
    UUID_TEXT = 13
    ENUM = 14
    STRUCT = 15
    CHOICE = 16
    UNION = 17
    LIST = 18
    MAP = 19

cdef enum:
    UUID_BYTES = 16
    UUID_CHARS = 36
    NO_DIGIT = 16


cdef struct Node:
    int op
    int column  # of the values; of a CHOICE its only child's; -1: none
    int first_child  # in Plan's list of children
    int children
    int64_t size
    int64_t multiply
    int64_t divide
    int128_t limit  # of the digits of a DECIMAL


# One run over many values.
cdef struct Run:
    const Node* nodes
    const int* children
    Column* columns
    Vec slots  # a hash table, for maps of many keys
    const uint8_t* at
    const uint8_t* end


cdef inline int read_long(Run* run, int64_t* out) noexcept nogil:
    cdef uint64_t number
    cdef const uint8_t* at = varint(run.at, run.end, &number)
    if at == NULL:
        return REFUSED
    run.at = at
    out[0] = unzigzag(number)
    return OK


cdef inline int read_size(Run* run, int64_t* out) noexcept nogil:
    """A length of bytes that are all there."""
    if read_long(run, out) != OK or out[0] < 0 or out[0] > run.end - run.at:
        return REFUSED
    return OK


cdef inline int read_decimal(Run* run, const Node* node) noexcept nogil:
    """Two's complement, big-endian, of any length as long as the number has no more digits than its type."""
    cdef int64_t size = node.size, spare
    cdef const uint8_t* data
    cdef uint8_t fill
    cdef int128_t number
    if size == 0:
        if read_size(run, &size) != OK:
            return REFUSED
    elif size > run.end - run.at:
        return REFUSED
    data = run.at
    run.at += size
    fill = 0xFF if size and data[0] & 0x80 else 0
    number = -1 if fill else 0
    spare = size - DECIMAL_BYTES
    while spare > 0:
        if data[0] != fill:
            return REFUSED
        data += 1
        size -= 1
        spare -= 1
    if size == DECIMAL_BYTES and (data[0] & 0x80) != (fill & 0x80):
        return REFUSED
    for _ in range(size):
        number = number * 256 + data[0]
        data += 1
    if number >= node.limit or number <= -node.limit:
        return REFUSED
    return push_fixed(&run.columns[node.column], &number, DECIMAL_BYTES)


cdef inline int read_uuid(Run* run, const Node* node) noexcept nogil:
    """The usual 36 characters; the twin knows the unusual ones."""
    cdef uint8_t bytes[UUID_BYTES]
    cdef uint8_t high, low, seen = 0
    cdef const uint8_t* at
    cdef int64_t size
    cdef int i
    if read_size(run, &size) != OK or size != UUID_CHARS:
        return REFUSED
    at = run.at
    if at[8] != 0x2D or at[13] != 0x2D or at[18] != 0x2D or at[23] != 0x2D:
        return REFUSED
    for i in range(UUID_BYTES):
        if i == 4 or i == 6 or i == 8 or i == 10:
            at += 1
        high, low = nibbles[at[0]], nibbles[at[1]]
        seen |= high | low
        bytes[i] = <uint8_t>(high << 4 | low)
        at += 2
    if seen & NO_DIGIT:
        return REFUSED
    run.at = at
    return push_fixed(&run.columns[node.column], bytes, UUID_BYTES)


cdef inline int read_bytes(Run* run, const Node* node) noexcept nogil:
    cdef int64_t size
    if read_size(run, &size) != OK:
        return REFUSED
    if node.op == TEXT and not is_utf8(run.at, <size_t>size):
        return REFUSED
    run.at += size
    return push_bytes(&run.columns[node.column], run.at - size, <size_t>size)


cdef inline int read_fixed(Run* run, const Node* node, int64_t size) noexcept nogil:
    if size > run.end - run.at:
        return REFUSED
    run.at += size
    return push_fixed(&run.columns[node.column], run.at - size, <size_t>size)


cdef inline int read_time(Run* run, const Node* node, int64_t least, int64_t most) noexcept nogil:
    """Microseconds: the number times `multiply`, or divided by `divide` and rounded down."""
    cdef int64_t number, rest
    if read_long(run, &number) != OK:
        return REFUSED
    if node.divide > 1:
        rest = number % node.divide
        number = number // node.divide - (rest < 0)  # division here is C's
    elif node.multiply > 1:
        if not least // node.multiply <= number <= most // node.multiply:
            return REFUSED
        number *= node.multiply
    if not least <= number <= most:
        return REFUSED
    return push_fixed(&run.columns[node.column], &number, sizeof(number))


cdef inline int read_int(Run* run, const Node* node, int64_t least, int64_t most) noexcept nogil:
    """A number from `least` to `most`, as 32 bits."""
    cdef int64_t number
    cdef int32_t narrow
    if read_long(run, &number) != OK or not least <= number <= most:
        return REFUSED
    narrow = <int32_t>number
    return push_fixed(&run.columns[node.column], &narrow, sizeof(narrow))


cdef inline int read_boolean(Run* run, const Node* node) noexcept nogil:
    cdef Column* column = &run.columns[node.column]
    if run.at == run.end or run.at[0] > 1:
        return REFUSED
    if push_bit(&column.data, column.length, run.at[0]) != OK:
        return NO_MEMORY
    run.at += 1
    return count_value(column, True)

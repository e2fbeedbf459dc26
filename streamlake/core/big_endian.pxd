# Kafka's numbers, big-endian and two's complement, for all kernels. Sizes are bytes, 8 at most.
from libc.stdint cimport int64_t, uint8_t, uint64_t


cdef inline int64_t read_int(const uint8_t* at, int size) noexcept nogil:
    cdef uint64_t number = 0
    cdef int i
    for i in range(size):
        number = number << 8 | at[i]
    if size < 8 and at[0] & 0x80:
        return <int64_t>number - (<int64_t>1 << (8 * size))
    return <int64_t>number


cdef inline void write_int(uint8_t* at, int size, int64_t number) noexcept nogil:
    cdef int i
    for i in range(size):
        at[size - 1 - i] = <uint8_t>(<uint64_t>number >> (8 * i))

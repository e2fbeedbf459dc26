# cython: language_level=3
"""Produce requests that follow each other and share their head, all but their records, found by comparing bytes.

A producer sends the same few heads over and over: version, client id, transactional id, acks, timeout, topic, partition.
Only the usual form is known here: one topic and one partition. Requests of another form are read one by one
(requests.parse), which is also what is right where the two seem to differ. The bytes may be hostile: nothing is read
behind their end. Source: Kafka's message definitions, ProduceRequest.json.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

from streamlake.core.big_endian cimport read_int, write_int

cdef enum:
    FIRST_FLEXIBLE = 9
    FIRST_BY_ID = 13
    VERSION_MAX = 13
    VERSION_MIN = 3
    HEAD_BYTES = 14  # length, api key, version, correlation id, length of the client id
    KEPT_BYTES = 4  # of them in the head: api key and version
    LENGTH_BYTES_MAX = 5  # of a compact length
    KNOWN_BYTES_MAX = 512  # of a head: whoever sends longer ones must not fill the memory with them


cdef const uint8_t* compact_length(const uint8_t* at, const uint8_t* end, int64_t* length) noexcept nogil:
    """Where a compact length ends; NULL if it does not before `end`, is null, or has more bytes than may be."""
    cdef uint64_t number = 0
    cdef int i
    for i in range(LENGTH_BYTES_MAX):
        if at + i >= end:
            return NULL
        number |= <uint64_t>(at[i] & 0x7F) << (7 * i)
        if at[i] < 0x80:
            length[0] = <int64_t>number - 1
            return at + i + 1 if 0 < number <= <uint64_t>INT32_MAX else NULL
    return NULL


cdef int64_t skip_head(const uint8_t* frame, int64_t size) noexcept nogil:
    """Where the length of the records stands in a usual frame, length of the frame included; -1 if it is not usual."""
    cdef int64_t at, n, version
    if size < HEAD_BYTES or read_int(frame + 4, 2) != 0:
        return -1
    version = read_int(frame + 6, 2)
    if not VERSION_MIN <= version <= VERSION_MAX:
        return -1
    n = read_int(frame + 12, 2)
    at = HEAD_BYTES + (n if n > 0 else 0)
    # Fixed fields of a length that is known, behind the transactional id; what is between them is checked below.
    if version < FIRST_FLEXIBLE:
        if at + 2 > size:
            return -1
        n = read_int(frame + at, 2)
        if n < -1:
            return -1
        at += 2 + (n if n > 0 else 0)
        if at + 2 + 4 + 4 + 2 > size or read_int(frame + at + 6, 4) != 1:
            return -1
        n = read_int(frame + at + 10, 2)
        at += 12 + n
        if n < 0 or at + 8 > size or read_int(frame + at, 4) != 1:
            return -1
        return at + 8
    if at + 2 > size or frame[at] != 0:
        return -1
    at += 1
    if frame[at] < 0x80:
        at += frame[at] if frame[at] > 0 else 1  # itself included; 0 is null
    elif at + 1 < size and 0 < frame[at + 1] < 0x80:
        at += (frame[at] & 0x7F | <int64_t>frame[at + 1] << 7) + 1
    else:
        return -1
    if at + 2 + 4 + 1 > size or frame[at + 6] != 2:
        return -1
    at += 7
    if version >= FIRST_BY_ID:
        at += 16
    elif at < size and 0 < frame[at] < 0x80:
        at += frame[at]  # itself included
    elif at + 1 < size and frame[at] >= 0x80 and 0 < frame[at + 1] < 0x80:
        at += (frame[at] & 0x7F | <int64_t>frame[at + 1] << 7) + 1
    else:
        return -1
    if at + 5 > size or frame[at] != 2:
        return -1
    return at + 5


def head(received, int64_t at, int64_t end):
    """What requests must share to follow the one at `at` in `frames`: its bytes up to the length of its records,
    without the frame's length and the correlation id. None if it is unusual, very long, or not whole before `end`."""
    cdef Py_buffer view
    cdef const uint8_t* frame
    cdef int64_t records_at = -1, length
    cdef bytes found = None
    PyObject_GetBuffer(received, &view, PyBUF_SIMPLE)
    try:
        if not 0 <= at <= end <= view.len:
            raise ValueError("a request outside of what was received")
        frame = <const uint8_t*>view.buf + at
        if end - at >= HEAD_BYTES:
            length = read_int(frame, 4)
            if 0 <= length <= end - at - 4:
                records_at = skip_head(frame, length + 4)
        if 0 <= records_at <= KNOWN_BYTES_MAX:
            found = PyBytes_FromStringAndSize(NULL, records_at - 8)
            memcpy(PyBytes_AS_STRING(found), frame + 4, KEPT_BYTES)
            memcpy(PyBytes_AS_STRING(found) + KEPT_BYTES, frame + 12, <size_t>(records_at - 12))
    finally:
        PyBuffer_Release(&view)
    return found


cdef struct Frame:
    int64_t records_at
    int64_t records_bytes
    int64_t end
    int32_t correlation_id


cdef class Frames:
    """Whole requests with one head, in the order they came."""

    cdef Frame* _frames
    cdef int _count
    cdef int _capacity

    def __dealloc__(self):
        free(self._frames)

    def __len__(self):
        return self._count

    @property
    def end(self):
        """Where the last one ends in what was received."""
        return self._frames[self._count - 1].end

    @property
    def spans(self):
        """Where the records of each are: pairs of int64, begin and bytes."""
        cdef bytes found = PyBytes_FromStringAndSize(NULL, 16 * self._count)
        cdef int64_t* out = <int64_t*>PyBytes_AS_STRING(found)
        cdef int i
        for i in range(self._count):
            out[2 * i] = self._frames[i].records_at
            out[2 * i + 1] = self._frames[i].records_bytes
        return found

    @property
    def correlation_ids(self):
        return [self._frames[i].correlation_id for i in range(self._count)]

    def keep(self, int count):
        """Only the first `count`, at least one."""
        if not 0 < count <= self._count:
            raise ValueError("as many requests are not there")
        self._count = count

    def responses(self, bytes response, places, base_offsets, int64_t log_start_offset, int64_t append_time_ms):
        """`response` once for each request, one after the other, with its correlation id and its own of `base_offsets`
        (int64 each). `places`: where base offset, log start and append time stand in it; -1 if they do not."""
        cdef int64_t size = PyBytes_GET_SIZE(response), base_at, start_at, time_at
        cdef bytes out = PyBytes_FromStringAndSize(NULL, size * self._count)
        cdef uint8_t* at = <uint8_t*>PyBytes_AS_STRING(out)
        cdef Py_buffer view
        cdef int i
        base_at, start_at, time_at = places
        if not 8 <= base_at <= size - 8 or max(start_at, time_at) > size - 8:
            raise ValueError("a place outside of the response")
        PyObject_GetBuffer(base_offsets, &view, PyBUF_SIMPLE)
        try:
            if view.len != 8 * self._count:
                raise ValueError("each request has one base offset")
            for i in range(self._count):
                memcpy(at, PyBytes_AS_STRING(response), <size_t>size)
                write_int(at + 4, 4, self._frames[i].correlation_id)
                write_int(at + base_at, 8, (<int64_t*>view.buf)[i])
                if start_at >= 0:
                    write_int(at + start_at, 8, log_start_offset)
                if time_at >= 0:
                    write_int(at + time_at, 8, append_time_ms)
                at += size
        finally:
            PyBuffer_Release(&view)
        return out

    cdef int _push(self, Frame frame) except -1:
        cdef Frame* larger
        if self._count == self._capacity:
            larger = <Frame*>realloc(self._frames, (2 * self._capacity + 4) * sizeof(Frame))
            if larger == NULL:
                raise MemoryError
            self._frames, self._capacity = larger, 2 * self._capacity + 4
        self._frames[self._count] = frame
        self._count += 1
        return 0


def frames(received, int64_t at, int64_t end, bytes head, int64_t frame_bytes_max, int count_max):
    """The requests from `at` on that have this head and end before `end`, each of at most `frame_bytes_max`, as Frames;
    None if the first has not."""
    cdef const uint8_t* shared = <const uint8_t*>PyBytes_AS_STRING(head)
    cdef int64_t shared_bytes = PyBytes_GET_SIZE(head)
    cdef const uint8_t* data
    cdef Py_buffer view
    cdef Frames found = Frames.__new__(Frames)
    cdef Frame frame
    cdef bint flexible
    if shared_bytes < KEPT_BYTES:
        raise ValueError("a head has at least an api key and a version")
    flexible = read_int(shared + 2, 2) >= FIRST_FLEXIBLE
    PyObject_GetBuffer(received, &view, PyBUF_SIMPLE)
    try:
        if not 0 <= at <= end <= view.len:
            raise ValueError("a request outside of what was received")
        data = <const uint8_t*>view.buf
        while found._count < count_max and end - at >= 8 + shared_bytes:
            frame.end = at + 4 + read_int(data + at, 4)
            if (
                frame.end < at + 8 + shared_bytes
                or frame.end > end
                or frame.end - at - 4 > frame_bytes_max
                or memcmp(data + at + 4, shared, KEPT_BYTES) != 0
                or memcmp(data + at + 12, shared + KEPT_BYTES, <size_t>(shared_bytes - KEPT_BYTES)) != 0
                or not find_records(data, at + 8 + shared_bytes, &frame, flexible)
            ):
                break
            frame.correlation_id = <int32_t>read_int(data + at + 8, 4)
            found._push(frame)
            at = frame.end
    finally:
        PyBuffer_Release(&view)
    return found if found._count else None


cdef bint find_records(const uint8_t* data, int64_t at, Frame* frame, bint flexible) noexcept nogil:
    """Whether the length at `at` leads to records that end with their request."""
    cdef const uint8_t* after
    cdef int64_t end = frame.end
    if flexible:
        end -= 3  # tagged fields of partition, topic and request: none
        after = compact_length(data + at, data + end, &frame.records_bytes)
        if after == NULL or data[end] or data[end + 1] or data[end + 2]:
            return False
        frame.records_at = after - data
    else:
        if end - at < 4:
            return False
        frame.records_bytes = read_int(data + at, 4)
        frame.records_at = at + 4
    return frame.records_bytes >= 0 and frame.records_at + frame.records_bytes == end

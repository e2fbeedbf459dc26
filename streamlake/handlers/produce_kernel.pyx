# cython: language_level=3
"""Produce requests of one connection that differ in nothing but their records, checked all at once.

Only the usual form is known here: one topic, one partition, one batch, no transaction. Its referee and fallback is the
ordinary way of a request (protocol/requests.py, produce.py, validate.py): what is not taken here goes that way, which
says what is wrong with it, or takes it after all. So only this must hold: what is taken here, the ordinary way would
take too, with the same effect and the same answer. The bytes may be hostile: nothing is read behind their end.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT32_MAX, INT64_MAX, INT64_MIN, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy

from crc32c import crc32c

from streamlake.record.batch import InvalidRecord
from streamlake.record.compression import check_form, unpacked
from streamlake.record.kernel cimport OK, REFUSED, Claims, Vec, push, varint, walk
from streamlake.record.validate import AT_ONCE_BATCH_BYTES, AT_ONCE_BYTES

cdef enum:
    FIRST_FLEXIBLE = 9
    FIRST_BY_ID = 13
    VERSION_MAX = 13
    VERSION_MIN = 3
    HEAD_BYTES = 14  # length, api key, version, correlation id, length of the client id
    KEPT_BYTES = 4  # of them in the key: api key and version
    BATCH_HEADER_BYTES = 61
    FRAME_BYTES = 12  # of a batch: base offset and length
    CHECKED_AT = 21  # the CRC covers a batch from here on
    UNUSUAL_ATTRIBUTES = 0x38  # log append time, transactional, control
    COMPRESSION_MASK = 0x07
    COMPRESSION_MAX = 4
    RUN_MAX = 256
    VARINT_BYTES_MAX = 5
    KNOWN_BYTES_MAX = 512  # of a head: whoever sends longer ones must not fill the memory with them

cdef int64_t ROOM_BYTES = AT_ONCE_BYTES, PACKED_BYTES_MAX = AT_ONCE_BATCH_BYTES


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
    # Fixed fields of a length that is known; what is between them is checked below.
    if version < FIRST_FLEXIBLE:
        if at + 2 + 2 + 4 + 4 + 2 > size or read_int(frame + at, 2) != -1 or read_int(frame + at + 8, 4) != 1:
            return -1
        n = read_int(frame + at + 12, 2)
        at += 14 + n
        if n < 0 or at + 8 > size or read_int(frame + at, 4) != 1:
            return -1
        return at + 8
    if at + 1 + 1 + 2 + 4 + 1 > size or frame[at] != 0 or frame[at + 1] != 0 or frame[at + 8] != 2:
        return -1
    at += 9
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
    """What requests must share to be of one run with the one at `at`: its bytes up to the length of its records,
    without the lengths and the correlation id. None if it is unusual, very long, or not there as a whole before `end`."""
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


cdef struct Taken:
    int32_t correlation_id
    int32_t count  # records
    int32_t sequence
    int64_t begin  # of the batch, in what was received
    int64_t size_bytes
    int64_t max_timestamp


@cython.no_gc  # what it holds can be part of no cycle, and must not be cleared while its bytes are looked at
cdef class Run:
    """One request at least, each with one sound batch: a BatchRun of log/partition.py, and the answers."""

    cdef readonly int64_t end  # in what was received
    cdef readonly int64_t size_bytes  # of all batches
    cdef readonly int64_t unpacked_bytes  # came out of those that are compressed
    cdef readonly int64_t records
    cdef readonly int64_t min_timestamp
    cdef readonly int64_t max_timestamp
    cdef readonly int64_t producer_id
    cdef readonly int32_t producer_epoch
    cdef readonly int32_t base_sequence
    cdef object _received
    cdef Py_buffer _view  # of it
    cdef Vec _taken
    cdef int _count

    def __dealloc__(self):
        free(self._taken.data)
        PyBuffer_Release(&self._view)

    cdef inline Taken* _at(self, int i) noexcept:
        return &(<Taken*>self._taken.data)[i]

    def __len__(self):
        return self._count

    @property
    def correlation_ids(self):
        return [self._at(i).correlation_id for i in range(self._count)]

    @property
    def first_count(self):
        """Records in the first batch."""
        return self._at(0).count

    def last(self, int count, int64_t base_offset):
        """Of the last batches, up to `count`: (base sequence, records, base offset, max timestamp)."""
        cdef int64_t first = base_offset + self.records
        cdef int i
        found = []
        for i in range(self._count - 1, max(-1, self._count - 1 - count), -1):
            first -= self._at(i).count
            found.append((self._at(i).sequence, self._at(i).count, first, self._at(i).max_timestamp))
        found.reverse()
        return found

    def placed(self, int64_t base_offset, int32_t leader_epoch):
        """All batches with their places in the log; see Placed."""
        cdef Placed placed = Placed.__new__(Placed)
        placed._run, placed._base_offset, placed._leader_epoch = self, base_offset, leader_epoch
        return placed

    cdef int _copy(self, uint8_t* at, int64_t base_offset, int32_t leader_epoch) except -1:
        cdef const uint8_t* received = <const uint8_t*>self._view.buf
        cdef int i
        if received == NULL:
            raise ValueError("what was received is no longer there: a run is placed once")
        for i in range(self._count):
            memcpy(at, received + self._at(i).begin, <size_t>self._at(i).size_bytes)
            write_int(at, 8, base_offset)
            write_int(at + FRAME_BYTES, 4, leader_epoch)
            base_offset += self._at(i).count
            at += self._at(i).size_bytes
        PyBuffer_Release(&self._view)
        self._view.buf = NULL
        self._received = None
        return 0

    def answers(self, bytes answer, int64_t base_offset_at, int64_t base_offset, int64_t start_at, int64_t start):
        """`answer` once for each request: with its correlation id, its base offset at `base_offset_at`, and the log's
        start at `start_at` unless that is negative."""
        cdef int64_t size = PyBytes_GET_SIZE(answer)
        if not 8 <= base_offset_at <= size - 8 or start_at > size - 8:
            raise ValueError("an answer is longer than the places in it")
        cdef bytes out = PyBytes_FromStringAndSize(NULL, size * self._count)
        cdef uint8_t* at = <uint8_t*>PyBytes_AS_STRING(out)
        cdef int i
        for i in range(self._count):
            memcpy(at, PyBytes_AS_STRING(answer), <size_t>size)
            write_int(at + 4, 4, self._at(i).correlation_id)
            write_int(at + base_offset_at, 8, base_offset)
            if start_at >= 0:
                write_int(at + start_at, 8, start)
            base_offset += self._at(i).count
            at += size
        return out

    cdef int _add(self, int32_t correlation_id, int64_t begin, int64_t size_bytes) except -1:
        """Take the batch there, as long as a header at least; 0 if it is unusual, or not of one row with the others."""
        cdef const uint8_t* batch = <const uint8_t*>self._view.buf + begin
        cdef int64_t attributes = read_int(batch + 21, 2), last_delta = read_int(batch + 23, 4)
        cdef int64_t base_timestamp = read_int(batch + 27, 8), max_timestamp = read_int(batch + 35, 8)
        cdef int64_t producer_id = read_int(batch + 43, 8), count = read_int(batch + 57, 4)
        cdef int32_t epoch = <int32_t>read_int(batch + 51, 2), sequence = <int32_t>read_int(batch + 53, 4)
        cdef int64_t least = INT64_MAX, most = INT64_MIN
        cdef Taken* before
        cdef Taken taken
        cdef Claims claims
        cdef int outcome
        if (
            batch[16] != 2
            or read_int(batch, 8) != 0
            or read_int(batch + 8, 4) != size_bytes - FRAME_BYTES
            or attributes & UNUSUAL_ATTRIBUTES
            or attributes & COMPRESSION_MASK > COMPRESSION_MAX
            or count <= 0
            or last_delta != count - 1
            or (producer_id != -1 and (producer_id < 0 or epoch < 0 or sequence < 0))
        ):
            return 0
        if self._count:
            before = self._at(self._count - 1)
            if producer_id != self.producer_id or epoch != self.producer_epoch:
                return 0
            if producer_id != -1 and <int64_t>before.sequence + before.count != sequence:
                return 0
        if crc32c(self._received[begin + CHECKED_AT : begin + size_bytes]) != <uint32_t>read_int(batch + 17, 4):
            return 0
        claims.base_offset = 0
        claims.base_timestamp = base_timestamp
        claims.append_time = max_timestamp
        claims.is_append_time = False
        claims.last_delta = last_delta
        claims.count = count
        claims.first_offset = 0
        if attributes & COMPRESSION_MASK == 0:
            outcome = walk(batch + BATCH_HEADER_BYTES, size_bytes - BATCH_HEADER_BYTES, &claims, NULL, &least, &most)
        else:
            payload = self._received[begin + BATCH_HEADER_BYTES : begin + size_bytes]
            outcome = self._walk_packed(attributes & COMPRESSION_MASK, payload, &claims, &least, &most)
        if outcome != OK or most != max_timestamp:  # the header must be put right
            return 0
        if least < 0 or most < 0:  # none at all, or before 1970
            return 0
        if not self._count:
            self.producer_id, self.producer_epoch, self.base_sequence = producer_id, epoch, sequence
            self.min_timestamp, self.max_timestamp = least, most
        self.min_timestamp = min(self.min_timestamp, least)
        self.max_timestamp = max(self.max_timestamp, most)
        taken.correlation_id, taken.count, taken.sequence = correlation_id, <int32_t>count, sequence
        taken.begin, taken.size_bytes, taken.max_timestamp = begin, size_bytes, most
        if push(&self._taken, &taken, sizeof(Taken)) != OK:
            raise MemoryError
        self._count += 1
        self.records += count
        self.size_bytes += size_bytes
        return 1

    cdef int _walk_packed(self, codec, packed, Claims* claims, int64_t* least, int64_t* most) except -1:
        """`walk` of a compressed payload; as little may come out of all of a run as the event loop can spare."""
        cdef Py_buffer view
        cdef int outcome
        if len(packed) > PACKED_BYTES_MAX or self.unpacked_bytes >= ROOM_BYTES:
            return REFUSED
        try:
            check_form(codec, packed)
            payload = unpacked(codec, packed, ROOM_BYTES - self.unpacked_bytes)
        except InvalidRecord:
            return REFUSED
        PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
        self.unpacked_bytes += view.len
        outcome = walk(<const uint8_t*>view.buf, <size_t>view.len, claims, NULL, least, most)
        PyBuffer_Release(&view)
        return outcome


cdef class Placed:
    """The batches of a run, one after the other, as they are written to their place: that is the one copy of them, and
    it is made once, while what was received is still there."""

    cdef Run _run
    cdef int64_t _base_offset
    cdef int32_t _leader_epoch

    def __len__(self):
        return self._run.size_bytes

    def copy_to(self, bytearray target, int64_t at):
        if not 0 <= at <= PyByteArray_GET_SIZE(target) - self._run.size_bytes:
            raise ValueError("there is no room for the batches")
        self._run._copy(<uint8_t*>PyByteArray_AS_STRING(target) + at, self._base_offset, self._leader_epoch)


def take(received, int64_t at, int64_t end, bytes head, int64_t frame_bytes_max, int64_t batch_bytes_max):
    """The requests from `at` on that have this head and one sound batch, each of at most so many bytes, as a Run; None
    if the first has not. What was received must not change before they are placed."""
    cdef const uint8_t* data
    cdef const uint8_t* shared = <const uint8_t*>PyBytes_AS_STRING(head)
    cdef int64_t shared_bytes = PyBytes_GET_SIZE(head)
    cdef int64_t length, records_at, size, tail
    cdef const uint8_t* after
    cdef uint64_t number
    cdef bint flexible
    cdef Run run = Run.__new__(Run)
    if shared_bytes < KEPT_BYTES:
        raise ValueError("a head has at least an api key and a version")
    run._received = memoryview(received)
    PyObject_GetBuffer(run._received, &run._view, PyBUF_SIMPLE)
    if not 0 <= at <= end <= run._view.len:
        raise ValueError("a request outside of what was received")
    data = <const uint8_t*>run._view.buf
    flexible = read_int(shared + 2, 2) >= FIRST_FLEXIBLE
    tail = 3 if flexible else 0  # tagged fields of partition, topic and request: none
    run.end = at
    while run._count < RUN_MAX and end - at >= 8 + shared_bytes:
        length = read_int(data + at, 4)
        records_at = at + 8 + shared_bytes
        if (
            length < 4 + shared_bytes
            or length > end - at - 4
            or length > frame_bytes_max
            or memcmp(data + at + 4, shared, KEPT_BYTES) != 0
            or memcmp(data + at + 12, shared + KEPT_BYTES, <size_t>(shared_bytes - KEPT_BYTES)) != 0
        ):
            break
        if flexible:
            after = varint(data + records_at, data + at + 4 + length, &number)
            if after == NULL or not 0 < number <= <uint64_t>INT32_MAX:
                break
            if after - (data + records_at) > VARINT_BYTES_MAX:
                break
            size = <int64_t>number - 1
            records_at = after - data
        else:
            if at + 4 + length - records_at < 4:
                break
            size = read_int(data + records_at, 4)
            records_at += 4
        if size < BATCH_HEADER_BYTES or size > batch_bytes_max or records_at + size + tail != at + 4 + length:
            break
        if flexible and (data[records_at + size] or data[records_at + size + 1] or data[records_at + size + 2]):
            break
        if not run._add(<int32_t>read_int(data + at + 8, 4), records_at, size):
            break
        at += 4 + length
        run.end = at
    return run if run._count else None

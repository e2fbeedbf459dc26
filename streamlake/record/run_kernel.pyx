# cython: language_level=3
"""One or more batches of one producer, checked in C and copied to their place in the log.

The twin is run.py with validate.py, and the referee: what `scan` does not take, they look at again, take it after all
or say what is wrong with it. So only this must hold: what is taken here, the twin takes too, and copies the same. The
bytes may be hostile: nothing is read behind their end.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, INT64_MIN, int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from crc32c import crc32c

from streamlake.record.batch import InvalidRecord
from streamlake.record.compression import check_form, unpacked
from streamlake.core.big_endian cimport read_int, write_int
from streamlake.record.kernel cimport OK, REFUSED, Claims, Vec, push, walk

cdef enum:
    MAGIC = 2
    HEADER_BYTES = 61
    FRAME_BYTES = 12  # base offset and length
    MAGIC_AT = 16
    CRC_AT = 17
    ATTRIBUTES_AT = 21  # the CRC covers a batch from here on
    MAX_TIMESTAMP_AT = 35
    LOG_APPEND_TIME_BIT = 0x08
    TRANSACTIONAL_BIT = 0x10
    UNUSUAL_ATTRIBUTES = 0x28  # log append time, control
    COMPRESSION_MASK = 0x07
    COMPRESSION_MAX = 4
    UNLOCKED_BYTES = 262144  # of records that were compressed: a thread walks so many without the GIL


cdef struct Batch:
    int64_t begin  # in what was received
    int64_t size_bytes
    int64_t max_timestamp  # the true one
    int32_t count
    int32_t sequence
    bint header_lies  # about max_timestamp


@cython.no_gc  # what it holds can be part of no cycle, and must not be cleared while its bytes are looked at
cdef class Run:
    """See run.Run."""

    cdef readonly int64_t size_bytes
    cdef readonly int64_t unpacked_bytes
    cdef readonly int64_t records
    cdef readonly int64_t min_timestamp
    cdef readonly int64_t max_timestamp
    cdef readonly int64_t producer_id
    cdef readonly int32_t producer_epoch
    cdef readonly int32_t base_sequence
    cdef readonly bint is_transactional
    cdef object _received
    cdef Py_buffer _view  # of it
    cdef Vec _batches
    cdef int _count

    def __dealloc__(self):
        free(self._batches.data)
        PyBuffer_Release(&self._view)

    cdef inline Batch* _at(self, int i) noexcept:
        return &(<Batch*>self._batches.data)[i]

    def __len__(self):
        return self._count

    @property
    def first_count(self):
        return self._at(0).count

    @property
    def is_log_append_time(self):
        return False

    def base_offsets(self, int64_t base_offset):
        cdef bytes found = PyBytes_FromStringAndSize(NULL, 8 * self._count)
        cdef int64_t* out = <int64_t*>PyBytes_AS_STRING(found)
        cdef int i
        for i in range(self._count):
            out[i] = base_offset
            base_offset += self._at(i).count
        return found

    def last(self, int count, int64_t base_offset):
        cdef int64_t first = base_offset + self.records
        cdef int i
        found = []
        for i in range(self._count - 1, max(-1, self._count - 1 - count), -1):
            first -= self._at(i).count
            found.append((self._at(i).sequence, self._at(i).count, first, self._at(i).max_timestamp))
        found.reverse()
        return found

    def placed(self, int64_t base_offset, int32_t leader_epoch, append_time_ms=None):
        cdef Placed placed = Placed.__new__(Placed)
        placed._run, placed._base_offset, placed._leader_epoch = self, base_offset, leader_epoch
        placed._is_append_time = append_time_ms is not None
        placed._append_time_ms = append_time_ms or 0
        return placed

    cdef int _add(
        self, int64_t begin, int64_t size_bytes, int64_t packed_bytes_max, int64_t unpacked_bytes_max
    ) except -1:
        """Take the batch there, as long as a header at least; 0 if it is unusual, or not of one run with the others."""
        cdef const uint8_t* batch = <const uint8_t*>self._view.buf + begin
        cdef int64_t attributes = read_int(batch + ATTRIBUTES_AT, 2), last_delta = read_int(batch + 23, 4)
        cdef int64_t base_timestamp = read_int(batch + 27, 8), max_timestamp = read_int(batch + MAX_TIMESTAMP_AT, 8)
        cdef int64_t producer_id = read_int(batch + 43, 8), count = read_int(batch + 57, 4)
        cdef int32_t epoch = <int32_t>read_int(batch + 51, 2), sequence = <int32_t>read_int(batch + 53, 4)
        cdef int64_t least = INT64_MAX, most = INT64_MIN, unpacked_bytes = 0
        cdef bint is_transactional = attributes & TRANSACTIONAL_BIT != 0
        cdef Batch* before
        cdef Batch taken
        cdef Claims claims
        cdef int outcome
        if (
            batch[MAGIC_AT] != MAGIC
            or read_int(batch, 8) != 0
            or read_int(batch + 8, 4) != size_bytes - FRAME_BYTES
            or attributes & UNUSUAL_ATTRIBUTES
            or attributes & COMPRESSION_MASK > COMPRESSION_MAX
            or count <= 0
            or last_delta != count - 1
            or (producer_id != -1 and (producer_id < 0 or epoch < 0 or sequence < 0))
            or (is_transactional and producer_id == -1)
        ):
            return 0
        if self._count:
            before = self._at(self._count - 1)
            if producer_id != self.producer_id or epoch != self.producer_epoch or self.min_timestamp < 0:
                return 0
            if is_transactional != self.is_transactional:
                return 0
            if producer_id != -1 and <int64_t>before.sequence + before.count != sequence:
                return 0
        if crc32c(self._received[begin + ATTRIBUTES_AT : begin + size_bytes]) != <uint32_t>read_int(batch + CRC_AT, 4):
            return 0
        claims.base_offset = 0
        claims.base_timestamp = base_timestamp
        claims.append_time = max_timestamp
        claims.is_append_time = False
        claims.last_delta = last_delta
        claims.count = count
        claims.first_offset = 0
        if attributes & COMPRESSION_MASK == 0:
            outcome = walk(batch + HEADER_BYTES, size_bytes - HEADER_BYTES, &claims, NULL, &least, &most)
        elif size_bytes - HEADER_BYTES > packed_bytes_max or self.unpacked_bytes >= unpacked_bytes_max:
            outcome = REFUSED
        else:
            packed = self._received[begin + HEADER_BYTES : begin + size_bytes]
            unpacked_bytes = unpacked_bytes_max - self.unpacked_bytes
            outcome = self._walk_packed(
                attributes & COMPRESSION_MASK, packed, &unpacked_bytes, &claims, &least, &most
            )
        if outcome != OK:
            return 0
        if least < 0 and self._count:  # no time at all, or before 1970: alone, as the least of a run must tell
            return 0
        if not self._count:
            self.producer_id, self.producer_epoch, self.base_sequence = producer_id, epoch, sequence
            self.is_transactional = is_transactional
            self.min_timestamp, self.max_timestamp = least, most
        self.min_timestamp = min(self.min_timestamp, least)
        self.max_timestamp = max(self.max_timestamp, most)
        taken.begin, taken.size_bytes, taken.max_timestamp = begin, size_bytes, most
        taken.count, taken.sequence, taken.header_lies = <int32_t>count, sequence, most != max_timestamp
        if push(&self._batches, &taken, sizeof(Batch)) != OK:
            raise MemoryError
        self._count += 1
        self.records += count
        self.size_bytes += size_bytes
        self.unpacked_bytes += unpacked_bytes
        return 1

    cdef int _walk_packed(
        self, codec, packed, int64_t* size_bytes, Claims* claims, int64_t* least, int64_t* most
    ) except -1:
        """`walk` of a compressed payload, of which at most `size_bytes` come out: as many as did."""
        cdef Py_buffer view
        cdef int outcome
        try:
            check_form(codec, packed)
            payload = unpacked(codec, packed, size_bytes[0])
        except InvalidRecord:
            return REFUSED
        PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
        size_bytes[0] = view.len
        if view.len < UNLOCKED_BYTES:
            outcome = walk(<const uint8_t*>view.buf, <size_t>view.len, claims, NULL, least, most)
        else:
            with nogil:
                outcome = walk(<const uint8_t*>view.buf, <size_t>view.len, claims, NULL, least, most)
        PyBuffer_Release(&view)
        return outcome

    cdef int _copy(self, bytearray target, int64_t at, Placed place) except -1:
        cdef const uint8_t* received = <const uint8_t*>self._view.buf
        cdef uint8_t* out
        cdef int64_t base_offset = place._base_offset
        cdef Batch* batch
        cdef int i
        if received == NULL:
            raise ValueError("what was received is no longer there: a run is copied once")
        for i in range(self._count):
            batch = self._at(i)
            out = <uint8_t*>PyByteArray_AS_STRING(target) + at
            memcpy(out, received + batch.begin, <size_t>batch.size_bytes)
            write_int(out, 8, base_offset)
            write_int(out + FRAME_BYTES, 4, place._leader_epoch)
            if place._is_append_time or batch.header_lies:
                if place._is_append_time:
                    out[ATTRIBUTES_AT + 1] |= LOG_APPEND_TIME_BIT
                write_int(
                    out + MAX_TIMESTAMP_AT, 8, place._append_time_ms if place._is_append_time else batch.max_timestamp
                )
                write_int(out + CRC_AT, 4, crc32c(memoryview(target)[at + ATTRIBUTES_AT : at + batch.size_bytes]))
            base_offset += batch.count
            at += batch.size_bytes
        PyBuffer_Release(&self._view)
        self._view.buf = NULL
        self._received = None
        return 0


cdef class Placed:
    """The batches of a run, one after the other, as they are copied to their place: that is the one copy of them, and
    it is made once, while what was received is still there."""

    cdef Run _run
    cdef int64_t _base_offset
    cdef int64_t _append_time_ms
    cdef int32_t _leader_epoch
    cdef bint _is_append_time

    def __len__(self):
        return self._run.size_bytes

    def copy_to(self, bytearray target, int64_t at):
        if not 0 <= at <= PyByteArray_GET_SIZE(target) - self._run.size_bytes:
            raise ValueError("there is no room for the batches")
        self._run._copy(target, at, self)


def scan(received, spans, int64_t batch_bytes_max, int64_t packed_bytes_max, int64_t unpacked_bytes_max):
    """See validate.twin_of_scan. What was received must not change before the run is copied."""
    cdef Run run = Run.__new__(Run)
    cdef Py_buffer places
    cdef const int64_t* span
    cdef int64_t i
    run._received = memoryview(received)
    PyObject_GetBuffer(run._received, &run._view, PyBUF_SIMPLE)
    PyObject_GetBuffer(spans, &places, PyBUF_SIMPLE)
    try:
        for i in range(places.len // 16):
            span = <const int64_t*>places.buf + 2 * i
            if not 0 <= span[0] <= run._view.len or not 0 <= span[1] <= run._view.len - span[0]:
                raise ValueError("a batch outside of what was received")
            if not HEADER_BYTES <= span[1] <= batch_bytes_max:
                break
            if not run._add(span[0], span[1], packed_bytes_max, unpacked_bytes_max):
                break
    finally:
        PyBuffer_Release(&places)
    return run if run._count else None

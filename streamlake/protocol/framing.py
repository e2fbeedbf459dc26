"""Cuts a byte stream into Kafka's frames: a big-endian int32 length, then so many bytes. Sans-IO.

A small frame that lies within one chunk is one copy of its bytes. A large one is gathered in a buffer of its own, and
what is still missing of it can be received straight into that buffer (`room`, `filled`), so its bytes are not copied
again. That buffer grows with what has arrived, so a peer that claims 100 MB and sends nothing costs nothing. Frames
wait here as bytes until they are asked for: the owner reads `buffered_bytes` and pauses its socket, so that this stays
small.
"""

import struct
from collections import deque

from streamlake.core.buffers import Buffers
from streamlake.protocol.wire import Buffer, Malformed

_LENGTH = struct.Struct(">i")
_SMALL_CHUNK_BYTES = 4096  # smaller ones are joined: an object for each byte that arrives alone weighs sixty times it
_ROOM_MIN_BYTES = 16 * 1024  # to receive less than this is not worth a call of its own
_GROWTH = 16  # a frame's buffer is at most so many times what has arrived of it


class FrameReader:
    def __init__(self, max_frame_bytes: int, buffers: Buffers | None = None) -> None:
        self._buffers = buffers or Buffers(0)
        self.max_frame_bytes = max_frame_bytes
        self.buffered_bytes = 0  # received and not yet handed out
        self._chunks: deque[bytes] = deque()
        self._at = 0  # position in the first chunk
        self._head = bytearray()  # a length that arrived in parts
        self._body: bytearray | None = None  # of a frame that arrives in parts: `_filled` of `_size` bytes are there
        self._filled = 0
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Take what the socket gave."""
        if data:
            self.buffered_bytes += len(data)
            if self._chunks and len(self._chunks[-1]) + len(data) <= _SMALL_CHUNK_BYTES:
                self._chunks[-1] += data
            else:
                self._chunks.append(data)

    def room(self) -> memoryview | None:
        """Where the next bytes from the socket belong, if they belong to a large frame that is under way; tell with
        `filled` how many came. Otherwise None: receive them anywhere and `feed` them."""
        if self._body is None or self._chunks or self._size - self._filled < _ROOM_MIN_BYTES:
            return None
        if len(self._body) == self._filled:
            self._grow(self._body, self._filled)
        return memoryview(self._body)[self._filled : self._size]

    def filled(self, size: int) -> None:
        self._filled += size
        self.buffered_bytes += size

    def chunk(self) -> tuple[bytes, int] | None:
        """The bytes in which the next frame starts, if it starts there with its length, and where; `skip` what was
        taken of them. None if its start came before."""
        if self._body is None and not self._head and self._chunks:
            return self._chunks[0], self._at
        return None

    def skip(self, size: int) -> None:
        """Whole frames of `chunk` were taken, so many bytes with their lengths."""
        self.buffered_bytes -= size
        self._advance(self._chunks[0], self._at + size)

    def next_frame(self) -> Buffer | None:
        """The next whole frame without its length, read-only, or None until more is fed.

        Malformed if its length is negative or over the limit; the stream cannot be read on after that.
        """
        while True:
            if self._body is not None and self._filled == self._size:
                return self._finished(self._body)
            if not self._chunks:
                return None
            chunk, at = self._chunks[0], self._at
            if self._body is None and not self._head and len(chunk) - at >= _LENGTH.size:
                start = at + _LENGTH.size
                size = self._checked(_LENGTH.unpack_from(chunk, at)[0])
                if len(chunk) - start >= size:
                    self._advance(chunk, start + size)
                    self.buffered_bytes -= _LENGTH.size + size
                    return chunk[start : start + size]
            self._gather(chunk, at)

    def _gather(self, chunk: bytes, at: int) -> None:
        """Move what this chunk has of a frame that spans chunks."""
        if self._body is None:
            end = at + _LENGTH.size - len(self._head)
            self._head += chunk[at:end]
            if len(self._head) < _LENGTH.size:
                self._advance(chunk, len(chunk))
                return
            self._size = self._checked(_LENGTH.unpack(self._head)[0])
            self._body, self._filled = bytearray(), 0
            at = end
        end = min(len(chunk), at + self._size - self._filled)
        filled = self._filled + end - at
        body = self._body if len(self._body) >= filled else self._grow(self._body, filled)
        body[self._filled : filled] = memoryview(chunk)[at:end]
        self._filled = filled
        self._advance(chunk, end)

    def _grow(self, body: bytearray, filled: int) -> bytearray:
        """A larger buffer, into which the frame fits after `filled` bytes of it have arrived, and some more."""
        self._body = self._buffers.take(min(self._size, max(_ROOM_MIN_BYTES, _GROWTH * filled)))
        self._body[: self._filled] = memoryview(body)[: self._filled]
        return self._body

    def _finished(self, body: bytearray) -> Buffer:
        self._body = None
        self._head.clear()
        self.buffered_bytes -= _LENGTH.size + self._size
        frame = memoryview(body).toreadonly()[: self._size]
        self._buffers.give(body)
        return frame

    def _advance(self, chunk: bytes, to: int) -> None:
        self._at = to
        if to >= len(chunk):
            self._chunks.popleft()
            self._at = 0

    def _checked(self, size: int) -> int:
        if not 0 <= size <= self.max_frame_bytes:
            raise Malformed(
                f"a frame of {size} bytes, and at most {self.max_frame_bytes} are allowed: "
                "the peer does not speak Kafka's protocol, or the limit is too low"
            )
        return size

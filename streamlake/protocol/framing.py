"""Cuts a byte stream into Kafka's frames: a big-endian int32 length, then so many bytes. Sans-IO.

A frame that lies within one chunk is one copy of its bytes. One that spans chunks is gathered in a buffer that grows
with what has arrived, so a peer that claims 100 MB and sends nothing costs nothing. Frames wait here as bytes until
they are asked for: the owner reads `buffered_bytes` and pauses its socket, so that this buffer stays small.
"""

import struct
from collections import deque

from streamlake.protocol.wire import Buffer, Malformed

_LENGTH = struct.Struct(">i")
_SMALL_CHUNK_BYTES = 4096  # smaller ones are joined: an object for each byte that arrives alone weighs sixty times it


class FrameReader:
    def __init__(self, max_frame_bytes: int) -> None:
        self.max_frame_bytes = max_frame_bytes
        self.buffered_bytes = 0  # received and not yet handed out
        self._chunks: deque[bytes] = deque()
        self._at = 0  # position in the first chunk
        self._head = bytearray()  # a length that arrived in parts
        self._body: bytearray | None = None  # a frame that arrived in parts, of which `_missing` bytes are to come
        self._missing = 0

    def feed(self, data: bytes) -> None:
        """Take what the socket gave."""
        if data:
            self.buffered_bytes += len(data)
            if self._chunks and len(self._chunks[-1]) + len(data) <= _SMALL_CHUNK_BYTES:
                self._chunks[-1] += data
            else:
                self._chunks.append(data)

    def next_frame(self) -> Buffer | None:
        """The next whole frame without its length, read-only, or None until more is fed.

        Malformed if its length is negative or over the limit; the stream cannot be read on after that.
        """
        while self._chunks:
            chunk, at = self._chunks[0], self._at
            if self._body is None and not self._head and len(chunk) - at >= _LENGTH.size:
                start = at + _LENGTH.size
                size = self._checked(_LENGTH.unpack_from(chunk, at)[0])
                if len(chunk) - start >= size:
                    self._advance(chunk, start + size)
                    self.buffered_bytes -= _LENGTH.size + size
                    return chunk[start : start + size]
            frame = self._gather(chunk, at)
            if frame is not None:
                return frame
        return None

    def _gather(self, chunk: bytes, at: int) -> Buffer | None:
        """Move what this chunk has of a frame that spans chunks."""
        if self._body is None:
            end = at + _LENGTH.size - len(self._head)
            self._head += chunk[at:end]
            if len(self._head) < _LENGTH.size:
                self._advance(chunk, len(chunk))
                return None
            self._missing = self._checked(_LENGTH.unpack(self._head)[0])
            self._body = bytearray()
            at = end
        end = min(len(chunk), at + self._missing)
        self._body += memoryview(chunk)[at:end]
        self._missing -= end - at
        self._advance(chunk, end)
        if self._missing:
            return None
        frame, self._body = memoryview(self._body).toreadonly(), None
        self._head.clear()
        self.buffered_bytes -= _LENGTH.size + len(frame)
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

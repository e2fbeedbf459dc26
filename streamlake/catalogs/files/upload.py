"""The stream that PyIceberg writes a file into: it collects the bytes, and `close` stores all of them at once."""

import io
from collections.abc import Callable
from types import TracebackType
from typing import Any


class Upload(io.RawIOBase):
    """`store` gets the whole content and returns when it is durable. Nothing is stored if the `with` block raised, or
    if nobody closed the stream."""

    def __init__(self, store: Callable[[bytes], None]) -> None:
        super().__init__()
        self._store: Callable[[bytes], None] | None = store
        self._parts: list[bytes] = []
        self._size_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data)  # a copy, unless it is bytes already: the caller may change its buffer afterwards
        self._parts.append(part)
        self._size_bytes += len(part)
        return len(part)

    def tell(self) -> int:
        return self._size_bytes

    def close(self) -> None:
        if self.closed:
            return
        try:
            if self._store is not None:
                self._store(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
        finally:
            self._parts = []
            super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._store = None
        self.close()

    def __del__(self) -> None:
        """Python would close the stream, and so store half a file that nobody finished."""

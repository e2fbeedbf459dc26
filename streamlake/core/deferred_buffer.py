"""A buffer whose bytes are produced only when they are copied to their final place.

Something that is made of parts, as a batch with a new header is, needs no copy of the whole on its way.
"""

from typing import Protocol


class DeferredBuffer(Protocol):
    def __len__(self) -> int:
        """The number of bytes that `copy_to` writes."""
        ...

    def copy_to(self, target: bytearray, at: int) -> None:
        """Write all bytes to `target` from index `at` on. Called once."""
        ...

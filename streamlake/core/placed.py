"""Bytes that write themselves to where they belong: what is made of parts needs no copy of the whole on its way."""

from typing import Protocol


class Placed(Protocol):
    def __len__(self) -> int:
        """Bytes."""
        ...

    def copy_to(self, target: bytearray, at: int) -> None:
        """Once."""
        ...

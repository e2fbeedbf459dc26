"""Counts the bytes of holders that learn only afterwards how much they hold, and so cannot wait for it.

They count what they hold, beyond the limit too, and begin nothing more while the account is full. A holder that is held
up by that leaves a callback. It is called once a quarter of the limit is free: if every byte that comes free called all
holders, they would spend their time on finding the account full again.
"""

from collections.abc import Callable


class Account:
    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._resume_bytes = limit_bytes * 3 // 4
        self._waiting: dict[Callable[[], None], None] = {}  # in order, so that a simulated cluster is repeatable

    @property
    def is_full(self) -> bool:
        return self.held_bytes >= self.limit_bytes

    @property
    def free_bytes(self) -> int:
        return max(0, self.limit_bytes - self.held_bytes)

    def count(self, change_bytes: int) -> None:
        """So many bytes more are held, or fewer."""
        self.held_bytes += change_bytes
        if self._waiting and self.held_bytes <= self._resume_bytes:
            waiting, self._waiting = self._waiting, {}
            for resume in waiting:
                resume()

    def when_free(self, resume: Callable[[], None]) -> None:
        """Call `resume` when there is capacity again: once, however often it is asked for."""
        self._waiting[resume] = None

    def forget(self, resume: Callable[[], None]) -> None:
        self._waiting.pop(resume, None)

"""Deadlines of many things few of which are ever late: one costs an entry in a dictionary, and no timer of its own.

A deadline is met up to TICK_S late, never early. One timer runs while there is anything to watch.
"""

import asyncio
from typing import Protocol

TICK_S = 0.25


class Late(Protocol):
    def time_is_up(self) -> None: ...


class Deadlines:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ticks: dict[int, dict[Late, None]] = {}  # what is due at each tick of the loop's clock
        self._timer: asyncio.TimerHandle | None = None

    def add(self, item: Late, timeout_s: float) -> int:
        """`item.time_is_up()` is called after `timeout_s`, unless it is removed before with the number given here."""
        tick = int((self._loop.time() + timeout_s) / TICK_S) + 1
        due = self._ticks.get(tick)
        if due is None:
            due = self._ticks[tick] = {}
            if self._timer is None:
                self._timer = self._loop.call_later(TICK_S, self._pass)
        due[item] = None
        return tick

    def remove(self, item: Late, tick: int) -> None:
        """No error if its time was up."""
        due = self._ticks.get(tick)
        if due is not None:
            due.pop(item, None)

    def _pass(self) -> None:
        now = int(self._loop.time() / TICK_S)
        self._timer = None
        for tick in sorted(tick for tick in self._ticks if tick <= now):
            for item in self._ticks.pop(tick):
                item.time_is_up()
        if self._ticks:
            self._timer = self._loop.call_later(TICK_S, self._pass)

"""A timer wheel for timeouts that are usually cancelled; many deadlines share one loop timer.

Adding and removing a deadline costs one dictionary entry. It fires up to TICK_S late, never early. The timer runs only
while there is a deadline to watch.
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
        """Call `item.time_is_up()` after `timeout_s`, unless the item is removed before. Returns the tick, which
        `remove` needs."""
        tick = int((self._loop.time() + timeout_s) / TICK_S) + 1
        due = self._ticks.get(tick)
        if due is None:
            due = self._ticks[tick] = {}
            if self._timer is None:
                self._timer = self._loop.call_later(TICK_S, self._pass)
        due[item] = None
        return tick

    def remove(self, item: Late, tick: int) -> None:
        """No error if it has fired."""
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

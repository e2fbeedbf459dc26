"""With a clock that the test moves: never early, at most a tick late, and nothing runs while there is nothing to do."""

import asyncio
from collections.abc import Callable

from streamlake.core.deadlines import TICK_S, Deadlines


class Loop(asyncio.AbstractEventLoop):
    def __init__(self) -> None:
        self.now = 100.1
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay, callback, *args, context=None):  # type: ignore[no-untyped-def]
        self.timers.append((self.now + delay, callback))
        return object()

    def run(self, until: float) -> None:
        while self.timers and self.timers[0][0] <= until:
            self.now, callback = self.timers.pop(0)
            callback()
        self.now = until


class Item:
    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.late_at: list[float] = []

    def time_is_up(self) -> None:
        self.late_at.append(self._loop.now)


def test_each_is_called_once_never_early_and_at_most_a_tick_late() -> None:
    loop = Loop()
    deadlines = Deadlines(loop)
    items = {timeout_s / 100: Item(loop) for timeout_s in range(0, 300, 7)}
    for timeout_s, item in items.items():
        deadlines.add(item, timeout_s)
    assert len(loop.timers) == 1, "one timer for all"
    loop.run(200)
    for timeout_s, item in items.items():
        (at,) = item.late_at
        assert 0 <= at - 100.1 - timeout_s < 2 * TICK_S


def test_what_was_removed_is_not_called_and_the_timer_ends() -> None:
    loop = Loop()
    deadlines = Deadlines(loop)
    items = [Item(loop) for _ in range(3)]
    ticks = [deadlines.add(item, 1) for item in items]
    deadlines.remove(items[1], ticks[1])
    loop.run(110)
    assert [len(item.late_at) for item in items] == [1, 0, 1]
    assert loop.timers == []
    deadlines.remove(items[0], ticks[0])  # too late, no error
    deadlines.add(items[1], 0)
    loop.run(120)
    assert len(items[1].late_at) == 1


def test_an_item_may_add_another_while_its_own_time_is_up() -> None:
    loop = Loop()
    deadlines = Deadlines(loop)
    second = Item(loop)

    class First:
        def time_is_up(self) -> None:
            deadlines.add(second, 0)

    deadlines.add(First(), 0)
    loop.run(110)
    assert len(second.late_at) == 1

"""How long tests wait: until a condition holds. The deadline only ends what would never come, on a machine however busy.

pytest's own limit for a test (pyproject.toml) is larger, so that a wait in vain fails with its own words.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
DEADLINE_S = 180


def wait_until(holds: Callable[[], T], what: Callable[[], object] = lambda: "it did not come true") -> T:
    """What `holds` gives once that is true; `what` says, if it never is, what there is instead."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := holds()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)
    return found


async def until(holds: Callable[[], object], pause_s: float = 0.001) -> None:
    """The same beside the tasks of this loop."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(pause_s)


async def turns(count: int = 50) -> None:
    """Let what is ready run, and what that makes ready. No time: on a busy machine little may happen in any."""
    for _ in range(count):
        await asyncio.sleep(0)

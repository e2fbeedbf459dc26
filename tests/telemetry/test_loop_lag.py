"""A loop that is held up shows it."""

import asyncio
import time

from streamlake.telemetry.loop_lag import INTERVAL_S, LoopLag


async def test_a_blocked_loop_is_late() -> None:
    lag = LoopLag()
    task = asyncio.create_task(lag.run())
    await asyncio.sleep(0)
    time.sleep(INTERVAL_S + 0.2)  # what a handler must never do
    await asyncio.sleep(0.01)
    task.cancel()
    assert lag.seconds >= 0.15
    assert lag.take_worst_s() >= 0.15
    assert lag.take_worst_s() == 0.0

"""How late the event loop is: what every request waits before anything of its own happens (DESIGN rule 12)."""

import asyncio
from collections.abc import Iterable

from streamlake.telemetry.metric import Metric, counter, gauge

INTERVAL_S = 0.1


class LoopLag:
    """Sleeps and looks by how much it overslept. `seconds` is the sum, `worst_s` the worst since it was last read."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._worst_s = 0.0

    def metrics(self) -> Iterable[Metric]:
        return (
            counter("streamlake_loop_lag_seconds", "Total lag of the event loop.", lambda: self.seconds),
            gauge("streamlake_loop_lag_worst_seconds", "Largest lag of the event loop since the last scrape.",
                self.take_worst_s),
        )  # fmt: skip

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + INTERVAL_S
            await asyncio.sleep(INTERVAL_S)
            late_s = max(0.0, loop.time() - due)
            self.seconds += late_s
            self._worst_s = max(self._worst_s, late_s)

    def take_worst_s(self) -> float:
        worst_s, self._worst_s = self._worst_s, 0.0
        return worst_s

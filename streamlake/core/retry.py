"""Trying again: which errors may pass, and how long to pause before the next attempt."""

import asyncio

from streamlake.core.errors import Full, OutcomeUnknown, Unavailable
from streamlake.core.ids import Ids

# The same call may succeed later. After OutcomeUnknown only a call that does no harm when repeated may be repeated.
TRANSIENT = (Unavailable, OutcomeUnknown, Full)
DOUBLINGS_MAX = 30


class Backoff:
    """Pauses with full jitter: anything up to a bound that doubles, so that many do not come back all at once."""

    def __init__(self, ids: Ids, first_s: float, max_s: float) -> None:
        self.failures = 0
        self._random = ids.random
        self._first_s = first_s
        self._max_s = max_s

    def next_delay_s(self) -> float:
        """Count a failure; the pause before the next attempt."""
        bound_s = min(self._max_s, self._first_s * 2.0 ** min(self.failures, DOUBLINGS_MAX))
        self.failures += 1
        return self._random.uniform(0, bound_s)

    async def pause(self) -> None:
        await asyncio.sleep(self.next_delay_s())

    def reset(self) -> None:
        """It worked: the next failure is the first one again."""
        self.failures = 0

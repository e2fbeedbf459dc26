"""A clean stop moves first: other brokers have what this one had before its port closes.

The state `draining` of its row asks the controller for that (controller.py): nothing is assigned to this broker any
more, and what it has is assigned to others. It serves meanwhile. Partitions are closed here and opened elsewhere as
whenever they move (ownership.py), slots of groups move at once, and tables follow the first partitions of their topics.

Nothing depends on it. What is still here when the time is over is given up by the rest of the stop, and assigned to
others when this broker has left.
"""

import asyncio
from collections.abc import Callable

import structlog

from streamlake.cluster.brokers import Brokers
from streamlake.cluster.slots import Slots
from streamlake.cluster.store.membership import Membership
from streamlake.core.errors import StreamLakeError
from streamlake.core.retry import TRANSIENT
from streamlake.s3stream.streams import Streams

log = structlog.get_logger(__name__)

LOOK_INTERVAL_S = 0.05
RETRY_S = 0.25


class Departure:
    def __init__(
        self,
        membership: Membership,
        brokers: Brokers,
        streams: Streams,
        slots: Slots,
        must_end: Callable[[], bool],
        timeout_s: float,
    ) -> None:
        """`must_end`: this process waits for nobody. `timeout_s`: how long it waits at most; 0 moves nothing."""
        self._membership = membership
        self._brokers = brokers
        self._streams = streams
        self._slots = slots
        self._must_end = must_end
        self._timeout_s = timeout_s

    async def run(self) -> None:
        """Returns when nothing is left here, or when nobody takes it, or after the timeout. Raises nothing."""
        if not self._timeout_s or not self._can_move():
            return
        log.info("moving to other brokers what this one has", **self._left())
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._begin()
                while self._can_move():
                    if not any(self._left().values()):
                        break
                    await asyncio.sleep(LOOK_INTERVAL_S)
        except TimeoutError:
            reason = f"it took longer than server.drain_timeout_s, {self._timeout_s:g} s"
        except StreamLakeError as error:
            reason = str(error)
        else:
            reason = "no other broker takes it, or the metadata store is away"
            if self._must_end():
                reason = "this process was told not to wait"
        if any(self._left().values()):
            log.warning(
                "not all was moved; others get the rest when this broker has left", reason=reason, **self._left()
            )
        else:
            log.info("other brokers have all that this one had")

    async def _begin(self) -> None:
        while self._can_move():
            try:
                await self._membership.drain()
            except TRANSIENT:
                await asyncio.sleep(RETRY_S)  # for it to land twice does no harm
            else:
                return

    def _can_move(self) -> bool:
        """Without the metadata store nothing can be assigned. A controller there is as long as anybody runs."""
        return self._brokers.others_are_available and self._membership.held() and not self._must_end()

    def _left(self) -> dict[str, int]:
        return {"partitions": len(self._streams.held()), "slots": len(self._slots.ours)}

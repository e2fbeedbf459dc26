"""Moments of a cluster that trouble waits for, seen as nobody outside could."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from simulation.cluster import BrokerLife

if TYPE_CHECKING:
    from simulation.life import Life

LOOK_S = 0.001  # between two looks for a moment
MOMENT_S = 1.0  # a moment that does not come within this time is not waited for
HANDLED_S = 60.0  # when a successor is not ready by then, its zombie wakes all the same


class Moments:
    def __init__(self, life: "Life") -> None:
        self._life = life
        self._loop = life.loop

    async def _moment(self, has_come: Callable[[], bool], wait_s: float = MOMENT_S, look_s: float = LOOK_S) -> bool:
        until = self._loop.time() + wait_s
        while not has_come():
            if self._loop.time() >= until:
                return False
            await asyncio.sleep(look_s)
        return True

    def _term(self) -> int:
        """The number of the term of the controller."""
        return max((epoch for (epoch,) in self._life.metadata.query("SELECT epoch FROM controller")), default=0)

    def _controller(self) -> BrokerLife | None:
        """If it runs."""
        rows = self._life.metadata.query("SELECT node, broker_epoch FROM controller")
        return next((life for life in self._life.supervisor.running if [(life.node, life.epoch)] == rows), None)

    @staticmethod
    def _in_flight(life: BrokerLife) -> bool:
        return life.appended_position > life.durable_position

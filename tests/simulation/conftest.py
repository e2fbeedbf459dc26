import asyncio

import pytest
from simulation.real import server  # noqa: F401
from simulation.world.loop import SimLoop


class SimPolicy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> SimLoop:
        return SimLoop(1)


@pytest.fixture
def sim_policy() -> asyncio.AbstractEventLoopPolicy:
    """For `event_loop_policy` of pytest-asyncio: async tests and fixtures run on a SimLoop, in its world."""
    return SimPolicy()

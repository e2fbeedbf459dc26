"""Each kind of strike comes about, and a cluster without bugs survives it. What each would find: test_bugs.py."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from simulation.actors.strikes import Strikes
from simulation.life import Life
from simulation.plan.plan import LOCAL_WAL, Plan, draw_plan
from simulation.world.loop import SimLoop

OBJECT = ("object",)


@pytest.mark.parametrize(
    ("kind", "wals"),
    [
        ("sent_again", OBJECT),
        ("followed_controller", OBJECT),
        ("late_commit_of_offsets", OBJECT),
        ("late_end_of_drain", (LOCAL_WAL, "object", LOCAL_WAL)),
        ("late_table", OBJECT),
        ("moved_partitions", OBJECT),
        ("drained_node", OBJECT),
    ],
)
def test_a_strike_comes_about(kind: str, wals: tuple[str, ...]) -> None:
    loop = SimLoop(7)
    calm: dict[str, Any] = {"embedded": False, "severity": "calm", "tables": True, "groups": True, "pace": 0.5}
    struck: dict[str, Any] = {"brokers": 3, "wals": wals, "strikes": (kind,)}
    plan: Plan = replace(draw_plan(str(loop.seed)), linger_ms=5, request_timeout_s=5.0, **calm, **struck)

    async def live() -> bool:
        life = Life(loop, plan)
        life.supervisor.begin()
        for seat in life.supervisor.seats[1:]:
            life.supervisor.start(seat.host, seat.wal, seat.node)
        begun = loop.create_task(life.begin_clients())
        await _until(lambda: begun.done() and len(life.cluster.serving) == 3)
        life.tables = ["rows"]  # `strict` becomes one only if it is struck
        strikes = Strikes(life, {})
        came = False
        for _ in range(5):
            came = await getattr(strikes, kind)()
            await asyncio.sleep(5)
            if came:
                break
        life.supervisor.end()
        assert not life.failures and not life.cluster.violations
        return came

    try:
        assert loop.run_until_complete(live())
    finally:
        loop.close()


async def _until(has_come: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not has_come():
            await asyncio.sleep(0.1)

"""Supervisors: a broker runs wherever one should, and comes back where its records are."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from simulation import supervisor
from simulation.life import Life
from simulation.plan.plan import LOCAL_WAL, Plan, draw_plan
from simulation.world.loop import SimLoop

from streamlake.core.errors import Unavailable


def in_life(main: Callable[[Life], Coroutine[Any, Any, Any]], **changes: Any) -> None:
    loop = SimLoop(1)
    drawn = draw_plan(str(loop.seed))
    defaults: dict[str, Any] = {"embedded": False, "severity": "calm", "tables": False, "wals": ("object",)}
    plan: Plan = replace(drawn, **{**defaults, **changes})

    async def run() -> None:
        life = Life(loop, plan)
        life.supervisor.begin()
        await main(life)
        assert not life.cluster.violations

    try:
        loop.run_until_complete(run())
        assert not loop.failures
    finally:
        loop.close()


async def until(has_come: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not has_come():
            await asyncio.sleep(0.1)


def test_another_node_follows_when_the_first_one_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "TOGETHER", False)

    async def main(life: Life) -> None:
        seen: dict[int, None] = {}
        while len(seen) < 3:
            await until(lambda: len(life.cluster.serving) == 1 == len(life.supervisor.running))
            (serving,) = life.cluster.serving
            seen[serving.node] = None
            assert serving.host.name == life.supervisor.seat(serving).host
            serving.process.kill()

    in_life(main, brokers=3)


def test_a_wal_on_a_disk_of_its_own_binds_a_node_to_its_host() -> None:
    async def main(life: Life) -> None:
        for _ in range(5):
            await until(lambda: bool(life.cluster.serving))
            life.cluster.serving[0].process.kill()
        assert {broker.host.name for broker in life.cluster.lives} == {"a"}

    in_life(main, wals=(LOCAL_WAL,), brokers=1)


def test_a_node_returns_to_the_host_whose_disk_has_its_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it was last: it had changed its WAL, and trouble had started it elsewhere, where it could do nothing."""
    monkeypatch.setattr(supervisor.Supervisor, "_next_place", lambda self, seat: ("b", "object"))

    async def main(life: Life) -> None:
        await until(lambda: bool(life.cluster.serving))
        life.cluster.serving[0].process.kill()
        elsewhere = life.supervisor.start("b", "object")
        await until(lambda: not elsewhere.process.alive)
        assert isinstance(elsewhere.error, Unavailable)
        await until(lambda: bool(life.cluster.serving))
        serving = life.cluster.serving[0]
        assert serving.host.name == "a"
        await until(lambda: not life.undrained())  # its disk binds it no more
        serving.process.kill()
        await until(lambda: bool(life.cluster.serving))
        assert life.cluster.serving[0].host.name == "b"

    in_life(main, wals=(LOCAL_WAL,), brokers=1)


def test_brokers_of_all_seats_serve_together_each_on_a_host_of_its_own() -> None:
    async def main(life: Life) -> None:
        await until(lambda: {broker.node for broker in life.cluster.serving} == {0, 1, 2})
        assert len({broker.host.name for broker in life.cluster.serving}) == 3

    in_life(main, brokers=3)

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from simulation.world.loop import Deadlock, Order, RealWorld, SimLoop, TooLong, TooManySteps, Trace
from simulation.world.process import Process

TESTS = Path(__file__).parents[2]


async def life(loop: SimLoop) -> list[tuple[int, int, float]]:
    """Tasks of the world and of two processes, with waits, locks, timeouts, cancellations and a queue."""
    seen: list[tuple[int, int, float]] = []
    queue: asyncio.Queue[int] = asyncio.Queue()
    lock = asyncio.Lock()
    random = loop.derived("life")

    async def work(number: int) -> None:
        for step in range(20):
            try:
                async with asyncio.timeout(random.random()), lock:
                    await asyncio.sleep(random.choice((0, 0.01, 0.5)))
            except TimeoutError:
                queue.put_nowait(number)
            seen.append((number, step, round(loop.time(), 6)))

    processes = [Process(loop, "a"), Process(loop, "b")]
    for number in range(6):
        processes[number % 2].start(work(number))
    await asyncio.gather(*(work(10 + n) for n in range(3)))
    doomed = asyncio.create_task(queue.join())
    done, _ = await asyncio.wait([doomed], timeout=5)
    doomed.cancel()
    assert not done or queue.empty()
    await asyncio.sleep(10)
    return seen


def run(seed: int | str, order: Order = "processes") -> tuple[Any, str]:
    loop = SimLoop(seed, order=order)
    try:
        return loop.run_until_complete(life(loop)), loop.trace.digest
    finally:
        loop.close()


@pytest.mark.parametrize("order", ["any", "processes"])
def test_one_seed_is_one_life(order: Order) -> None:
    lives = [run(seed, order) for seed in (1, 1, 2, 3)]
    assert lives[0] == lives[1]
    assert len({digest for _, digest in lives}) == 3
    assert len({str(seen) for seen, _ in lives}) == 3


def test_a_life_is_the_same_in_another_python_process() -> None:
    script = "from simulation.world.test_loop import run; print(run(7)[1], run(7, 'any')[1])"
    found = []
    for hash_seed in ("0", "1234"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(TESTS)}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
        found.append(done.stdout.decode().split())
    assert found[0] == found[1] == [run(7)[1], run(7, "any")[1]]


def test_a_kept_trace_has_the_same_hash_and_tells_all() -> None:
    def traced(keep: bool) -> Trace:
        loop = SimLoop(3, trace=Trace(keep))
        loop.run_until_complete(life(loop))
        loop.event("the end")
        loop.close()
        return loop.trace

    kept, other = traced(True), traced(False)
    assert kept.digest == other.digest
    assert kept.lines == traced(True).lines
    assert kept.lines is not None
    assert kept.lines[-1].endswith("world: the end")
    assert any("a: run #" in line and "test_loop.py" in line for line in kept.lines)


def in_loop(main: Callable[[SimLoop], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    loop = SimLoop(1, **options)
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()


def test_time_is_virtual() -> None:
    async def main(loop: SimLoop) -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.sleep(7200)
        return loop.time()

    began = time.monotonic()
    assert 3600 <= in_loop(main) < 3601
    assert time.monotonic() - began < 60


def starts(loop: SimLoop) -> Coroutine[Any, Any, list[str]]:
    async def main() -> list[str]:
        order: list[str] = []
        for name in ("a", "b"):
            process = Process(loop, name)
            for number in range(4):
                process.call_soon(order.append, f"{name}{number}")
        await asyncio.sleep(0.1)
        return order

    return main()


def test_order_any_shuffles_all() -> None:
    orders = []
    for seed in range(40):
        loop = SimLoop(seed, order="any")
        orders.append(loop.run_until_complete(starts(loop)))
        loop.close()
    assert any([x for x in order if x[0] == "a"] != ["a0", "a1", "a2", "a3"] for order in orders)


def test_order_processes_keeps_asyncios_promise_inside_a_process() -> None:
    orders = []
    for seed in range(40):
        loop = SimLoop(seed, order="processes")
        orders.append(loop.run_until_complete(starts(loop)))
        loop.close()
    for order in orders:
        assert [x for x in order if x[0] == "a"] == ["a0", "a1", "a2", "a3"]
        assert [x for x in order if x[0] == "b"] == ["b0", "b1", "b2", "b3"]
    assert len({tuple(order) for order in orders}) > 10


def test_a_deadlock_says_who_waits_where() -> None:
    async def main(loop: SimLoop) -> None:
        async def wait_for_nothing() -> None:
            await asyncio.Event().wait()

        Process(loop, "broker").start(wait_for_nothing(), "the waiter")
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match=r"broker: the waiter: Event.wait \(asyncio/locks.py:\d+\)"):
        in_loop(main)


def test_a_busy_life_ends() -> None:
    async def spin(loop: SimLoop) -> None:
        while True:
            await asyncio.sleep(0)

    async def sleep(loop: SimLoop) -> None:
        while True:
            await asyncio.sleep(1)

    with pytest.raises(TooManySteps, match="1001 callbacks"):
        in_loop(spin, steps_max=1000)
    with pytest.raises(TooLong, match="60 s have passed"):
        in_loop(sleep, seconds_max=60)


def test_a_busy_wait_for_a_time_ends_by_itself() -> None:
    async def main(loop: SimLoop) -> None:
        deadline = loop.time() + 0.01
        while loop.time() < deadline:
            await asyncio.sleep(0)

    in_loop(main)


@pytest.mark.parametrize(
    "reach",
    [
        lambda: socket.socket(),
        lambda: threading.Thread(target=print).start(),
        lambda: subprocess.run(["true"], check=True),
        lambda: time.sleep(0),
    ],
    ids=["socket", "thread", "subprocess", "sleep"],
)
def test_the_real_world_is_out_of_reach(reach: Callable[[], Any]) -> None:
    async def main(loop: SimLoop) -> None:
        with pytest.raises(RealWorld):
            reach()

    in_loop(main)
    reach()  # outside of a loop it is free


def test_threads_and_sockets_of_the_loop_raise() -> None:
    async def main(loop: SimLoop) -> None:
        with pytest.raises(RealWorld):
            await asyncio.to_thread(print)
        with pytest.raises(RealWorld):
            await loop.create_connection(asyncio.Protocol, "127.0.0.1", 1)
        with pytest.raises(NotImplementedError):
            loop.add_signal_handler(15, print)
        with pytest.raises(NotImplementedError):
            loop.add_reader(0, print)

    in_loop(main)


def test_what_asyncio_would_only_log_is_kept() -> None:
    async def main(loop: SimLoop) -> list[str]:
        async def fail() -> None:
            raise ValueError("nobody looks")

        loop.call_soon(lambda: 1 / 0)
        Process(loop, "p").start(fail(), "the task")
        dead = Process(loop, "dead")
        dead.start(fail())
        await asyncio.sleep(1)
        dead.kill()
        return loop.failures

    failures = in_loop(main)
    assert len(failures) == 2
    assert "world: a callback raised: ZeroDivisionError" in failures[0]
    assert "p: task the task failed: ValueError('nobody looks') at world/test_loop.py:" in failures[1]


def test_generators_that_are_left_are_closed() -> None:
    closed = []

    async def numbers() -> Any:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main(loop: SimLoop) -> None:
        async for _ in numbers():
            break
        await asyncio.sleep(1)

    in_loop(main)
    assert closed == [True]


def test_speed(capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, not asserted: a busy machine is no bug."""
    figures = []
    for order in ("any", "processes"):
        loop = SimLoop(1, order=order)

        async def turns(count: int) -> None:
            for _ in range(count):
                await asyncio.sleep(0)

        async def main(loop: SimLoop = loop) -> None:
            processes = [Process(loop, str(n)) for n in range(4)]
            for n in range(40):
                processes[n % 4].start(turns(2500))
            await asyncio.sleep(1)

        began = time.perf_counter()
        loop.run_until_complete(main())
        figures.append(f"{order}: {loop.steps / (time.perf_counter() - began):,.0f} callbacks/s")
        assert loop.steps > 100_000
        loop.close()
    with capsys.disabled():
        print(f" [{', '.join(figures)}] ", end="")

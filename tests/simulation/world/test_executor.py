import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from simulation.world.chance import Latency
from simulation.world.executor import SimExecutor, take_time
from simulation.world.loop import SimLoop, current_process
from simulation.world.process import Process, ProcessKilled

SLOW = Latency(1.0)  # 0.5 to 1.5 s before, and after


def in_process(life: Callable[[Process], Coroutine[Any, Any, Any]], seed: int = 1, wait_s: float = 100) -> Process:
    loop = SimLoop(seed)

    async def main() -> Process:
        process = Process(loop, "p")
        process.start(life(process))
        await asyncio.sleep(wait_s)
        return process

    process = loop.run_until_complete(main())
    assert not loop.failures
    loop.close()
    return process


def test_one_thread_runs_its_calls_in_order_in_the_context_of_its_process() -> None:
    done: list[Any] = []

    async def life(process: Process) -> None:
        executor = SimExecutor("x", process, SLOW)

        def work(n: int) -> int:
            done.append((n, current_process()))
            return n * n

        assert await asyncio.gather(*(executor.run(work, n) for n in range(10))) == [n * n for n in range(10)]
        assert process.loop.time() > 5
        assert executor.calls == 10
        done.append("end")

    process = in_process(life)
    assert done == [*((n, process) for n in range(10)), "end"]


def test_threads_run_side_by_side() -> None:
    async def life(process: Process) -> None:
        for threads, at_least, at_most in ((1, 10, 16), (4, 3, 6)):
            executor, began = SimExecutor("x", process, threads=threads), process.loop.time()
            await asyncio.gather(*(executor.run(take_time, 1.2) for _ in range(10)))
            assert at_least < process.loop.time() - began < at_most

    in_process(life)


def test_errors_are_the_callers() -> None:
    async def life(process: Process) -> None:
        executor = SimExecutor("x", process)
        with pytest.raises(ZeroDivisionError):
            await executor.run(lambda: 1 / 0)
        assert await executor.run(int, "7") == 7

    in_process(life)


def test_a_process_dies_before_its_call_or_after_it() -> None:
    """The four lives of a call: not begun; done and not heard; done and heard."""
    seen = set()
    for tenths in range(32):
        done, heard = [], []

        async def life(process: Process, done: list[int] = done, heard: list[int] = heard) -> None:
            executor = SimExecutor("x", process, SLOW)
            await executor.run(done.append, 1)
            heard.append(1)

        loop = SimLoop(1)

        async def main(loop: SimLoop = loop, life: Any = life, tenths: int = tenths) -> None:
            process = Process(loop, "p")
            process.start(life(process))
            await asyncio.sleep(tenths / 10)
            process.kill()
            await asyncio.sleep(10)

        loop.run_until_complete(main())
        loop.close()
        seen.add((len(done), len(heard)))
    assert seen == {(0, 0), (1, 0), (1, 1)}


def test_a_call_that_is_cancelled_before_it_began_is_not_made_and_one_that_began_is() -> None:
    async def life(process: Process) -> None:
        executor, done = SimExecutor("x", process, SLOW), []
        calls = [asyncio.create_task(executor.run(done.append, n)) for n in range(3)]
        await asyncio.sleep(0)
        calls[1].cancel()
        await calls[2]
        assert done == [0, 2]

    in_process(life)


def test_a_process_killed_in_the_middle_of_a_function_goes_no_further() -> None:
    after: list[int] = []

    async def life(process: Process) -> None:
        def die() -> None:
            process.kill()
            raise ProcessKilled

        await SimExecutor("x", process).run(die)
        after.append(1)

    assert not in_process(life).alive
    assert after == []


def test_close_does_what_was_asked_for_and_takes_no_more() -> None:
    async def life(process: Process) -> None:
        executor, done = SimExecutor("x", process, SLOW), []
        calls = [asyncio.create_task(executor.run(done.append, n)) for n in range(3)]
        await asyncio.sleep(0.1)
        executor.close()
        assert done == [0, 1, 2]
        with pytest.raises(RuntimeError, match="shutdown"):
            await executor.run(done.append, 3)
        await asyncio.gather(*calls)
        assert done == [0, 1, 2]

    in_process(life)

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from simulation.world.loop import SimLoop, current_process
from simulation.world.process import KILLED, Process


def in_loop(main: Callable[[SimLoop], Coroutine[Any, Any, Any]], seed: int = 1) -> Any:
    loop = SimLoop(seed)
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()


def test_kill_runs_nothing_more(recwarn: pytest.WarningsRecorder, capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[str] = []

    async def guarded(name: str, wait: Callable[[], Any]) -> None:
        try:
            async with asyncio.timeout(5):
                await wait()
        except BaseException:
            ran.append(f"except {name}")
            raise
        finally:
            ran.append(f"finally {name}")

    async def numbers() -> Any:
        try:
            while True:
                yield 1
                await asyncio.sleep(1)
        finally:
            ran.append("finally generator")

    async def iterate() -> None:
        async for _ in numbers():
            pass

    async def main(loop: SimLoop) -> None:
        process = Process(loop, "p")
        process.start(guarded("sleep", lambda: asyncio.sleep(1)))
        process.start(guarded("event", asyncio.Event().wait))
        process.start(guarded("task", lambda: asyncio.create_task(asyncio.sleep(3))))
        process.start(iterate())
        process.call_later(0.7, ran.append, "timer")
        await asyncio.sleep(0.5)
        process.start(guarded("never begun", lambda: asyncio.sleep(1)))
        process.kill()
        assert process.returncode == KILLED
        del process
        for _ in range(20):
            await asyncio.sleep(1)
            gc.collect()
        assert ran == []
        assert loop.failures == []

    in_loop(main)
    gc.collect()
    assert not recwarn.list
    assert capsys.readouterr() == ("", "")


def test_a_paused_process_wakes_late_and_does_all_it_had_to_do() -> None:
    async def main(loop: SimLoop) -> None:
        seen: list[float] = []
        process = Process(loop, "zombie")
        booted = process.clock.boottime()

        async def tick() -> None:
            while True:
                await asyncio.sleep(1)
                seen.append(loop.time())

        process.start(tick())
        process.call_later(3, lambda: seen.append(-1.0))
        await asyncio.sleep(2.5)
        assert len(seen) == 2
        process.pause()
        await asyncio.sleep(10)
        assert len(seen) == 2
        process.resume()
        await asyncio.sleep(0.1)
        assert sorted(seen)[0] == -1.0, "the timer that was due ran late"
        assert max(seen) > 12.4, "the sleep that was over ended late"
        assert process.clock.boottime() - booted > 12.5, "its lease clock went on"
        await asyncio.sleep(3)
        assert len(seen) > 5

    in_loop(main)


def test_a_paused_process_can_be_killed() -> None:
    async def main(loop: SimLoop) -> None:
        ran: list[int] = []
        process = Process(loop, "p")
        process.pause()
        process.call_soon(ran.append, 1)
        await asyncio.sleep(1)
        process.kill()
        process.resume()
        await asyncio.sleep(1)
        assert ran == []

    in_loop(main)


def test_kill_at_every_await() -> None:
    """As many different ends as there are steps, and no step runs after its end."""

    async def main(loop: SimLoop) -> set[int]:
        ends = set()
        for n in range(1, 8):
            process, done = Process(loop, f"p{n}"), []

            async def steps(done: list[int] = done) -> None:
                for step in range(5):
                    done.append(step)
                    await asyncio.sleep(0)

            process.start(steps())
            process.kill_in(n)
            await asyncio.sleep(1)
            assert process.alive == (n > 6)
            ends.add(len(done))
        return ends

    assert in_loop(main) == {0, 1, 2, 3, 4, 5}


def test_what_waits_for_the_end_of_a_process_runs_in_its_own_context() -> None:
    async def main(loop: SimLoop) -> None:
        parent, child, told = Process(loop, "parent"), Process(loop, "child"), []

        async def watch() -> None:
            code = await child.wait()
            told.append((code, current_process()))

        async def end_by_itself() -> None:
            await asyncio.sleep(1)
            child.exit(3)
            await asyncio.sleep(1)
            told.append("after the end")

        parent.start(watch())
        child.start(end_by_itself())
        await asyncio.sleep(5)
        assert told == [(3, parent)]
        assert await child.wait() == 3

    in_loop(main)


def test_contexts_are_inherited_and_kept_apart() -> None:
    async def main(loop: SimLoop) -> None:
        seen: list[tuple[str, Any]] = []
        processes = {name: Process(loop, name) for name in ("a", "b")}

        def note(name: str) -> None:
            seen.append((name, current_process()))

        async def life(name: str, other: asyncio.Future[None]) -> None:
            loop.call_soon(note, name)
            loop.call_later(1, note, name)
            other.add_done_callback(lambda _: note(name))
            await asyncio.create_task(asyncio.sleep(0.1))
            note(name)
            await other
            note(name)

        shared: asyncio.Future[None] = loop.create_future()
        for name, process in processes.items():
            process.start(life(name, shared))
        await asyncio.sleep(2)
        processes["a"].call_soon(shared.set_result, None)
        await asyncio.sleep(1)
        assert len(seen) == 10
        assert all(process is processes[name] for name, process in seen)
        assert current_process() is None

    in_loop(main)


def test_clock_and_ids_are_the_process_own() -> None:
    async def main(loop: SimLoop) -> None:
        a, b = Process(loop, "a", "h1", skew_ms=500), Process(loop, "b", "h1")
        assert a.clock.now_ms() - b.clock.now_ms() == 500
        assert a.clock.boottime() == b.clock.boottime(), "one host, one boot"
        a.clock.step(-1000)
        assert a.clock.now_ms() - b.clock.now_ms() == -500
        assert a.ids.uuid() != b.ids.uuid()
        again = SimLoop(loop.seed)
        assert Process(again, "a").ids.uuid() != b.ids.uuid()
        again.close()

    in_loop(main)

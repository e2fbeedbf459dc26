import asyncio
import threading

import pytest

from streamlake.core.tasks import InlineExecutor, Supervisor, ThreadExecutor


async def test_one_thread_runs_calls_in_order_off_the_loop() -> None:
    executor = ThreadExecutor("test")
    ran: list[int] = []
    threads = await asyncio.gather(
        *(executor.run(lambda i: (ran.append(i), threading.get_ident())[1], i) for i in range(50))
    )
    executor.close()
    assert ran == list(range(50))
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()


async def test_inline_runs_at_once() -> None:
    assert await InlineExecutor().run(threading.get_ident) == threading.get_ident()


async def test_executors_hand_on_errors() -> None:
    def fail() -> None:
        raise ValueError("x")

    executor = ThreadExecutor("test")
    for each in (executor, InlineExecutor()):
        with pytest.raises(ValueError):
            await each.run(fail)
    executor.close()


async def test_a_task_that_raises_is_reported_and_others_go_on() -> None:
    failures: list[tuple[str, str]] = []
    reported = asyncio.Event()

    def on_failure(name: str, error: BaseException) -> None:
        failures.append((name, str(error)))
        reported.set()

    supervisor = Supervisor(on_failure)

    async def fail() -> None:
        raise ValueError("boom")

    async def done() -> None:
        pass

    forever = supervisor.start("forever", asyncio.Event().wait())
    supervisor.start("done", done())
    supervisor.start("fail", fail())
    await reported.wait()
    assert failures == [("fail", "boom")]
    assert not forever.done()
    await supervisor.stop()
    assert forever.cancelled()
    assert failures == [("fail", "boom")], "being stopped is no failure"


async def test_stop_waits_for_clean_up_and_survives_what_it_raises() -> None:
    supervisor = Supervisor(lambda name, error: None)
    steps: list[str] = []

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")
            raise ValueError("while stopping")

    supervisor.start("stubborn", stubborn())
    await asyncio.sleep(0)
    await supervisor.stop()
    assert steps == ["cleaned up"]

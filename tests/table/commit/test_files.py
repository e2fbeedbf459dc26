import threading

import pytest
from support.table_world import Executor, MemoryIO
from support.wait import DEADLINE_S

from streamlake.core.tasks import ThreadExecutor
from streamlake.table.commit.files import StagedIO, put, put_all


def test_writes_stay_in_memory_and_reads_go_through() -> None:
    base = MemoryIO({"memory": {"a": b"stored"}})
    staged = StagedIO(base)
    with staged.new_output("b").create() as stream:
        stream.write(b"new")
    assert staged.staged == {"b": b"new"}
    assert base.files == {"a": b"stored"}
    assert len(staged.new_output("b")) == 3
    assert staged.new_output("b").exists()
    assert not staged.new_output("c").exists()
    assert staged.new_input("a").open().read() == b"stored"
    staged.delete("a")
    assert base.files == {}


async def test_all_are_put() -> None:
    base = MemoryIO({"memory": {}})
    await put_all(Executor(), base, {"a": b"1", "b": memoryview(b"2")})
    assert base.files == {"a": b"1", "b": b"2"}


async def test_one_that_fails_fails_all_but_none_is_left_in_flight() -> None:
    entered, go = threading.Barrier(2, timeout=DEADLINE_S), threading.Event()

    class Slow(MemoryIO):
        def new_output(self, location: str):
            entered.wait()
            if location == "bad":
                go.set()
                raise OSError("no space left on device")
            assert go.wait(DEADLINE_S)
            return super().new_output(location)

    base = Slow({"memory": {}})
    executor = ThreadExecutor("t", 2)
    with pytest.raises(OSError, match="no space"):
        await put_all(executor, base, {"bad": b"", "good": b"x"})
    assert base.files == {"good": b"x"}  # it was waited for
    executor.close()


def test_put_replaces() -> None:
    base = MemoryIO({"memory": {"a": b"old"}})
    put(base, "a", b"new")
    assert base.files == {"a": b"new"}

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from contracts.objectstore_contract import ObjectStoreContract
from simulation.world.bucket import CALM, MILD, WILD, BucketFaults, SimBucket
from simulation.world.executor import SimExecutor
from simulation.world.loop import SimLoop
from simulation.world.net import SimNet
from simulation.world.process import Process

from streamlake.core.errors import Exists, OutcomeUnknown, Unavailable
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor
from streamlake.s3stream.store.bucket import RequestPolicy, S3Store
from streamlake.s3stream.store.client import RequestFailed
from streamlake.s3stream.store.probe import probe_conditional_writes

PATIENT = RequestPolicy(attempts=20)


@pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture")
class StoreOnABucket(ObjectStoreContract):
    faults = CALM

    @pytest.fixture
    def event_loop_policy(self, sim_policy: asyncio.AbstractEventLoopPolicy) -> asyncio.AbstractEventLoopPolicy:
        return sim_policy

    @pytest.fixture
    async def store(self) -> AsyncIterator[S3Store]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        bucket = SimBucket(loop, faults=self.faults)
        yield S3Store(bucket.client("s3://bucket/some/prefix"), Ids(1), InlineExecutor(), PATIENT)
        assert all(key.startswith("some/prefix/") for key in bucket.objects)


class TestStoreOnACalmBucket(StoreOnABucket): ...


class TestStoreOnAMildBucket(StoreOnABucket):
    faults = replace(MILD, lost=0.05, throttled=0.1, error_after=0.05, conflict=0.05)


def in_loop(main: Callable[[SimLoop], Coroutine[Any, Any, Any]], seed: int = 1) -> Any:
    loop = SimLoop(seed)
    try:
        result = loop.run_until_complete(main(loop))
        assert not loop.failures
        return result
    finally:
        loop.close()


def test_the_probe_of_conditional_writes_passes() -> None:
    async def main(loop: SimLoop) -> None:
        store = S3Store(SimBucket(loop, faults=MILD).client(), Ids(1), InlineExecutor(), PATIENT)
        await probe_conditional_writes(store, Ids(2), "s3://bucket")

    in_loop(main)


@pytest.mark.parametrize(
    ("fault", "operation", "status", "stored"),
    [
        ("lost", "put", None, False),
        ("throttled", "put", 503, False),
        ("conflict", "create", 409, False),
        ("error_after", "create", 500, True),
        ("reset_after", "put", None, True),
        ("silent_after", "create", None, True),
        ("late", "create", None, False),
    ],
)
def test_each_fault_of_a_put(fault: str, operation: str, status: int | None, stored: bool) -> None:
    async def main(loop: SimLoop) -> None:
        bucket = SimBucket(loop, faults=BucketFaults(**{fault: 1.0}))
        with pytest.raises(RequestFailed) as failed:
            await bucket.client().put("k", b"body", create=operation == "create")
        assert failed.value.status == status
        assert ("k" in bucket.objects) == stored
        if fault == "silent_after":
            assert loop.time() > 9
        if fault == "late":
            await asyncio.sleep(61)
            assert bucket.objects == {"k": b"body"}
        bucket.heal()
        await bucket.client().put("other", b"", create=True)

    in_loop(main)


def test_answers_of_a_calm_bucket() -> None:
    async def main(loop: SimLoop) -> None:
        client = SimBucket(loop).client("s3://bucket/a")
        await client.put("k", b"0123", create=True)
        with pytest.raises(RequestFailed) as failed:
            await client.put("k", b"x", create=True)
        assert failed.value.status == 412
        for missing in (client.get("none"), client.get_range("none", 0, 1)):
            with pytest.raises(RequestFailed) as failed:
                await missing
            assert failed.value.status == 404
        assert await client.get_range("k", 2, 10) == b"23"
        assert await client.get_range("k", 9, 10) == b""
        await client.delete(["k", "none"])
        with pytest.raises(RequestFailed, match="404"):
            await client.get("k")

    in_loop(main)


def test_a_list_comes_in_pages() -> None:
    async def main(loop: SimLoop) -> None:
        bucket = SimBucket(loop)
        bucket.objects = {f"a/k/{n:04}": bytes(n % 3) for n in range(2500)} | {"a/l": b"", "b": b""}
        store = S3Store(bucket.client("s3://bucket/a"), Ids(1), InlineExecutor())
        found = [(meta.key, meta.size) async for meta in store.list("k/")]
        assert found == [(f"k/{n:04}", n % 3) for n in range(2500)]

    in_loop(main)


@pytest.mark.parametrize("end", ["cancel", "kill"])
def test_the_put_of_somebody_who_has_gone_may_land(end: str) -> None:
    landed = Counter()
    for seed in range(40):

        async def main(loop: SimLoop) -> None:
            bucket = SimBucket(loop)
            process = Process(loop, "p")
            task = process.start(bucket.client().put("k", b"x", create=True))
            await asyncio.sleep(0.001)
            task.cancel() if end == "cancel" else process.kill()
            await asyncio.sleep(5)
            landed["k" in bucket.objects] += 1

        in_loop(main, seed)
    assert landed[True] > 5
    assert landed[False] > 5


def test_a_paused_sender_hears_late() -> None:
    async def main(loop: SimLoop) -> None:
        bucket, heard = SimBucket(loop), []
        process = Process(loop, "p")

        async def put() -> None:
            try:
                await bucket.client().put("k", b"x", create=True)
            finally:
                heard.append(loop.time())

        process.start(put())
        await asyncio.sleep(0.001)
        process.pause()
        await asyncio.sleep(5)
        assert "k" in bucket.objects
        assert not heard
        process.resume()
        await asyncio.sleep(0.1)
        assert heard

    in_loop(main)


def test_storms_and_outages_pass() -> None:
    async def main(loop: SimLoop) -> None:
        bucket = SimBucket(loop)
        client = bucket.client()
        bucket.storm(30)
        outcomes: Counter[Any] = Counter()
        for n in range(100):
            try:
                await client.put(f"{n}", b"", create=False)
            except RequestFailed as failed:
                outcomes[failed.status] += 1
        assert outcomes[503] > 70
        await asyncio.sleep(30)
        bucket.outage(30)
        with pytest.raises(RequestFailed) as silence:
            await client.get("k")
        assert silence.value.status is None
        await asyncio.sleep(30)
        await client.put("k", b"", create=True)

    in_loop(main)


def test_two_writers_over_a_wild_bucket_never_both_win() -> None:
    """The three outcomes of S3Store are honest whatever the bucket does."""
    told: Counter[str] = Counter()
    for seed in range(20):

        async def main(loop: SimLoop) -> None:
            bucket = SimBucket(loop, faults=WILD)
            winners: dict[str, list[str]] = {}

            async def write(process: Process) -> None:
                store = S3Store(bucket.client(), process.ids, SimExecutor("objects", process))
                for n in range(10):
                    try:
                        await store.create(f"{n}", [process.name.encode()])
                        winners.setdefault(f"{n}", []).append(process.name)
                        told["created"] += 1
                    except (Exists, OutcomeUnknown, Unavailable) as error:
                        told[type(error).__name__] += 1

            for name in ("a", "b"):
                process = Process(loop, name)
                process.start(write(process))
            await asyncio.sleep(3000)
            for key, names in winners.items():
                assert len(names) == 1
                assert bucket.objects[key] == names[0].encode()
            done = [event for event in bucket.history if event.outcome == "done" and event.operation == "create"]
            assert sorted(event.key for event in done) == sorted(bucket.objects)

        in_loop(main, seed)
    assert told["created"] > 100
    assert told["Exists"] > 100


def test_history_says_who_did_what_when() -> None:
    async def main(loop: SimLoop) -> None:
        bucket = SimBucket(loop)
        process = Process(loop, "p")
        process.start(bucket.client().put("k", b"body", create=True))
        await asyncio.sleep(1)
        (event,) = bucket.history
        assert (event.operation, event.key, event.who, event.outcome, event.size) == ("create", "k", "p", "done", 4)
        assert 0 < event.time_s < 1

    in_loop(main)


def test_one_seed_is_one_history() -> None:
    def history(seed: int) -> Any:
        async def main(loop: SimLoop) -> Any:
            bucket = SimBucket(loop, faults=WILD)
            store = S3Store(bucket.client(), Ids(1), InlineExecutor())
            await asyncio.gather(*(store.put(f"{n}", [b"x"]) for n in range(50)), return_exceptions=True)
            return bucket.history, loop.trace.digest

        return in_loop(main, seed)

    assert history(1) == history(1)
    assert history(1) != history(2)


@pytest.mark.parametrize(("source", "target", "stored"), [("a", "bucket", False), ("bucket", "a", True)])
def test_what_a_partition_stops_is_lost_the_request_or_the_answer(source: str, target: str, stored: bool) -> None:
    async def main(loop: SimLoop) -> None:
        net, bucket, told = SimNet(loop), SimBucket(loop), list[str]()

        async def put(key: str) -> None:
            try:
                await bucket.client().put(key, b"x", create=True)
                told.append("done")
            except RequestFailed as failure:
                told.append(str(failure))

        process, near = Process(loop, "p", "a"), Process(loop, "q", "b")
        net.partition(source, target, both=False)
        process.start(put("far"))
        near.start(put("near"))
        await asyncio.sleep(11)
        assert told == ["done", "no answer within 10 s"]
        assert ("far" in bucket.objects) == stored
        net.heal()
        process.start(put("healed"))
        await asyncio.sleep(1)
        assert "healed" in bucket.objects

    in_loop(main)

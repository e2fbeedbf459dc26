import asyncio

import pytest
from support.wait import DEADLINE_S, turns

from streamlake.cluster import image
from streamlake.cluster.broker_configs import BrokerConfigs
from streamlake.cluster.image import CatchUp, keep_fresh
from streamlake.cluster.store.database import Database
from streamlake.core.errors import OutcomeUnknown, StreamLakeError, Unavailable


async def lose_answers(cluster, monkeypatch: pytest.MonkeyPatch, reads: int) -> None:
    """The next write is done and its answer lost; so many reads after it fail."""
    database, run = cluster.database, cluster.database._run
    left = [reads]

    def faulty(writes, reads):
        outcomes = run(writes, reads)
        if writes and left[0] == reads_lost:
            return [(None, OutcomeUnknown("lost"))] * len(writes) + [(None, Unavailable("down"))] * len(reads)
        if reads and left[0] > 0:
            left[0] -= 1
            return outcomes[: len(writes)] + [(None, Unavailable("down"))] * len(reads)
        return outcomes

    reads_lost = reads
    monkeypatch.setattr(database, "_run", faulty)
    monkeypatch.setattr(image, "RETRY_S", 0)


async def test_a_topic_whose_creation_was_not_heard_of_is_seen_in_the_end(cluster, monkeypatch) -> None:
    """Found by simulation: it existed for whoever created it again, and was unknown to whoever asked, for ever."""
    topics = await cluster.topics()
    await lose_answers(cluster, monkeypatch, reads=3)
    with pytest.raises(StreamLakeError):
        await topics.create("orders", 1, {})
    assert topics.get("orders") is None
    keeping = asyncio.create_task(keep_fresh(topics.stale, topics.refresh))
    async with asyncio.timeout(DEADLINE_S):
        while topics.get("orders") is None:
            await asyncio.sleep(0)
    assert not topics.stale.is_set()
    keeping.cancel()


async def test_a_config_too(cluster, monkeypatch) -> None:
    configs = BrokerConfigs(cluster.database, cluster.identity, {})
    await configs.refresh()
    await lose_answers(cluster, monkeypatch, reads=2)
    with pytest.raises(StreamLakeError):
        await configs.alter(None, {"log.retention.bytes": "7"})
    assert configs.value("log.retention.bytes") == -1
    keeping = asyncio.create_task(keep_fresh(configs.stale, configs.refresh))
    async with asyncio.timeout(DEADLINE_S):
        while configs.value("log.retention.bytes") != 7:
            await asyncio.sleep(0)
    keeping.cancel()


@pytest.fixture
def not_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on PostgreSQL: there may be other brokers."""
    monkeypatch.setattr(Database, "is_ours_alone", False)


@pytest.mark.usefixtures("not_alone")
async def test_what_another_broker_has_just_made_is_found_by_who_asks_for_it(cluster) -> None:
    ours, theirs = await cluster.topics(), await cluster.topics()
    catch_up = CatchUp(cluster.database, ours)
    for number in range(3):
        await theirs.create(f"topic-{number}", 1, {})
        assert ours.get(f"topic-{number}") is None
        await catch_up()
        assert ours.get(f"topic-{number}") is not None


@pytest.mark.usefixtures("not_alone")
async def test_all_who_ask_share_a_look_and_nothing_is_read_that_has_not_changed(cluster, monkeypatch) -> None:
    ours, theirs = await cluster.topics(), await cluster.topics()
    catch_up, reads = CatchUp(cluster.database, ours), cluster.database.reads
    await asyncio.gather(*[catch_up() for _ in range(50)])
    assert cluster.database.reads == reads + 1
    asking = [asyncio.create_task(catch_up()) for _ in range(50)]
    await asyncio.sleep(0)
    await theirs.create("orders", 1, {})
    await asyncio.gather(*asking)
    assert ours.get("orders") is not None
    assert cluster.database.reads == reads + 3


@pytest.mark.usefixtures("not_alone")
async def test_who_asks_during_a_look_gets_another_one(cluster, monkeypatch) -> None:
    """The look may have read before the topic was made."""
    ours, theirs = await cluster.topics(), await cluster.topics()
    catch_up, gate, read = CatchUp(cluster.database, ours), asyncio.Event(), cluster.database.read

    async def slow(fn):
        answer = await read(fn)
        await gate.wait()
        return answer

    monkeypatch.setattr(cluster.database, "read", slow)
    first = asyncio.create_task(catch_up())
    await turns()
    monkeypatch.setattr(cluster.database, "read", read)
    await theirs.create("orders", 1, {})
    second = asyncio.create_task(catch_up())
    await second
    assert ours.get("orders") is not None
    assert not first.done()
    gate.set()
    await first


@pytest.mark.usefixtures("not_alone")
async def test_nobody_waits_for_a_store_that_is_away(cluster, monkeypatch) -> None:
    topics = await cluster.topics()
    monkeypatch.setattr(image, "CATCH_UP_TIMEOUT_S", 0.01)
    monkeypatch.setattr(cluster.database, "read", lambda fn: asyncio.Event().wait())
    catch_up = CatchUp(cluster.database, topics)
    await catch_up()

    async def down(fn):
        raise Unavailable("down")

    monkeypatch.setattr(cluster.database, "read", down)
    monkeypatch.setattr(image, "CATCH_UP_TIMEOUT_S", DEADLINE_S)
    await CatchUp(cluster.database, topics)()
    assert topics.stale.is_set(), "it is read as soon as the store is back"


async def test_a_broker_that_is_alone_has_nothing_to_catch_up_with(cluster, monkeypatch) -> None:
    monkeypatch.setattr(Database, "is_ours_alone", True)
    reads = cluster.database.reads
    await CatchUp(cluster.database, await cluster.topics())()
    assert cluster.database.reads == reads + 1, "that of the image itself"

import asyncio

import pytest
from support.wait import DEADLINE_S

from streamlake.cluster import image
from streamlake.cluster.broker_configs import BrokerConfigs
from streamlake.cluster.image import keep_fresh
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

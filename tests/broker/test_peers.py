"""Connections to other brokers, over real sockets."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from support.peer_server import SECRET

from streamlake.broker.peers import Peers
from streamlake.cluster.brokers import Brokers
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.membership import BeatView
from streamlake.core.errors import Closed, Invalid, Unavailable
from streamlake.core.tasks import Supervisor


@pytest.fixture
def brokers() -> Brokers:
    return Brokers(BrokerIdentity("c", 1, 4), "127.0.0.1", 1)


@pytest.fixture
async def peers(brokers: Brokers) -> AsyncIterator[Peers]:
    tasks = Supervisor()
    peers = Peers(brokers, SECRET, tasks)
    yield peers
    await peers.close()
    await tasks.stop()


async def test_there_is_one_connection_to_a_life_of_a_broker(brokers: Brokers, peers: Peers, serve) -> None:
    with pytest.raises(Unavailable, match="does not serve"):
        peers.of(2)
    two = await serve(2)
    brokers.seen(BeatView(0, (two.info,)))
    first = peers.of(2)
    await first.poke(5)
    assert two.image.stale.is_set()
    brokers.seen(BeatView(0, (replace(two.info, beat=9),)))
    assert peers.of(2) is first
    again = await serve(2, 2)
    brokers.seen(BeatView(0, (again.info,)))
    assert peers.of(2) is not first
    await peers.of(2).poke(5)
    assert again.image.stale.is_set()
    brokers.seen(BeatView(0, ()))
    with pytest.raises(Unavailable):
        peers.of(2)


async def test_a_broker_of_another_cluster_is_none(brokers: Brokers, peers: Peers, serve) -> None:
    two = await serve(2)
    brokers.seen(BeatView(0, (replace(two.info, epoch=9),)))
    with pytest.raises(Invalid, match="does not take this broker"):
        await peers.of(2).poke(5)


async def test_after_the_end_nothing_is_asked(brokers: Brokers, peers: Peers, serve) -> None:
    two = await serve(2)
    brokers.seen(BeatView(0, (two.info,)))
    peer = peers.of(2)
    await peers.close()
    with pytest.raises(Closed):
        await peer.poke(5)

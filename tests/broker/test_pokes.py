"""Other brokers are told of a change, over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from support.peer_server import SECRET
from support.wait import until

from streamlake.broker import pokes as module
from streamlake.broker.pokes import Pokes
from streamlake.cluster.brokers import Brokers
from streamlake.cluster.secret import ClusterSecret
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.membership import BeatView, BrokerInfo
from streamlake.core.sockets import bind
from streamlake.core.tasks import Supervisor


class Us:
    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self.brokers = Brokers(BrokerIdentity("c", 1, 4), "127.0.0.1", 1)
        self.tasks = Supervisor(lambda _, error: self.failures.append(error))
        self.pokes = Pokes(self.brokers, SECRET, self.tasks)

    def see(self, *others: BrokerInfo) -> None:
        self.brokers.seen(BeatView(0, others))


@pytest.fixture
async def us() -> AsyncIterator[Us]:
    us = Us()
    yield us
    await us.pokes.close()
    await us.tasks.stop()
    assert us.failures == []


async def test_all_that_serve_are_told_and_look(us: Us, serve) -> None:
    two, three = await serve(2), await serve(3)
    us.see(two.info, three.info)
    us.pokes.tell(5)
    await asyncio.gather(two.image.stale.wait(), three.image.stale.wait())
    await until(lambda: us.pokes.sent == 2)
    us.see(two.info)
    us.pokes.tell(6)
    await until(lambda: us.pokes.sent == 3)
    assert (two.pokes, three.pokes) == (2, 1)


async def test_who_has_gone_is_known_before_its_beats_fail(us: Us, serve) -> None:
    two, three = await serve(2), await serve(3)
    us.brokers.listeners.append(us.pokes.follow)
    us.see(two.info, three.info)
    await until(lambda: us.pokes.sent == 2)
    await two.stop()
    await until(lambda: [b.node for b in us.brokers.serving()] == [1, 3])
    us.see(two.info, three.info)
    assert [b.node for b in us.brokers.serving()] == [1, 3], "its row still says that it serves"
    back = await serve(2, 1, SECRET, two.port)
    await until(lambda: [b.node for b in us.brokers.serving()] == [1, 2, 3])
    await until(lambda: back.pokes == 1)


async def test_a_connection_that_ends_says_nothing_of_who_still_listens(us: Us, serve) -> None:
    two = await serve(2)
    us.brokers.listeners.append(us.pokes.follow)
    us.see(two.info)
    await until(lambda: us.pokes.sent == 1)
    (line,) = us.pokes._lines.values()
    line.peer._connection._transport.abort()
    await until(lambda: not us.tasks._tasks)
    assert [b.node for b in us.brokers.serving()] == [1, 2]


async def test_what_comes_while_a_poke_is_under_way_is_told_by_one_more(us: Us, serve) -> None:
    two = await serve(2)
    us.see(two.info)
    for revision in range(1, 100):
        us.pokes.tell(revision)
    await until(lambda: us.pokes.sent == 1)
    assert two.pokes == 1, "the last number was known before the connection was made"
    us.pokes.tell(100)
    await asyncio.sleep(0)
    for revision in range(101, 200):
        us.pokes.tell(revision)
    await until(lambda: us.pokes.sent == 3)
    assert two.pokes == 3


async def test_who_cannot_be_reached_harms_nobody_and_is_told_the_next_time(us: Us, serve, monkeypatch) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.05)
    silent = bind("127.0.0.1", 0, "Kafka", "", "", 1)
    gone = bind("127.0.0.1", 0, "Kafka", "", "", 1)
    port = gone.getsockname()[1]
    gone.close()
    two = await serve(2)
    other_cluster = await serve(5, 1, ClusterSecret(b"y" * 32))
    deaf = replace(two.info, node=3, port=silent.getsockname()[1])
    us.see(two.info, deaf, replace(two.info, node=4, port=port), other_cluster.info)
    us.pokes.tell(7)
    await two.image.stale.wait()
    await until(lambda: us.pokes.failed == 3)
    assert not other_cluster.image.stale.is_set()
    us.pokes.tell(8)
    await until(lambda: (us.pokes.failed, us.pokes.sent) == (6, 2))
    silent.close()


async def test_the_next_life_of_a_broker_is_greeted_anew(us: Us, serve) -> None:
    former = await serve(2)
    us.see(former.info)
    us.pokes.tell(1)
    await until(lambda: us.pokes.sent == 1)
    next_life = await serve(2, 2)
    us.see(next_life.info)
    us.pokes.tell(2)
    await next_life.image.stale.wait()
    await until(lambda: not former.listener._connections)


async def test_nothing_is_told_after_the_end(us: Us, serve) -> None:
    two = await serve(2)
    us.see(two.info)
    await us.pokes.close()
    us.pokes.tell(1)
    assert us.pokes._lines == {}

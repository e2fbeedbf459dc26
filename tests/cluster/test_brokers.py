import asyncio
from dataclasses import dataclass, field

from support.members import next_process
from support.wait import until

from streamlake.cluster.broker_configs import BrokerConfigs
from streamlake.cluster.brokers import Brokers
from streamlake.cluster.image import keep_fresh
from streamlake.cluster.secret import Life
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.membership import BeatView, BrokerInfo, Membership
from streamlake.cluster.store.schema import DRAINING, FENCED, LEFT, SERVING, STARTING
from streamlake.core.ids import Ids

OWN = BrokerInfo(1, 4, 0, SERVING, "one", 9001)


def brokers() -> Brokers:
    return Brokers(BrokerIdentity("c", OWN.node, OWN.epoch), OWN.host, OWN.port)


def view(*others: BrokerInfo, revision: int = 0) -> BeatView:
    return BeatView(revision, tuple(sorted((OWN, *others), key=lambda broker: broker.node)))


def broker(node: int, state: str = SERVING, epoch: int = 1, beat: int = 0) -> BrokerInfo:
    return BrokerInfo(node, epoch, beat, state, f"host-{node}", 9000 + node)


@dataclass
class Image:
    revision: int
    stale: asyncio.Event = field(default_factory=asyncio.Event)


def test_a_broker_knows_itself_before_its_first_beat() -> None:
    image = brokers()
    assert image.serving() == [OWN]
    assert (image.get(1), image.get(0), image.node, image.controller, image.cluster_id) == (OWN, None, 1, 1, "c")


def test_clients_are_told_of_brokers_that_serve() -> None:
    image = brokers()
    image.seen(view(broker(5), broker(0), broker(2, LEFT), broker(3, FENCED)))
    assert image.serving() == [broker(0), OWN, broker(5)]
    assert (image.get(5), image.get(2), image.get(3), image.get(9)) == (broker(5), None, None, None)
    image.seen(view(broker(5, LEFT), broker(2, epoch=2)))
    assert image.serving() == [OWN, broker(2, epoch=2)]


def test_this_broker_is_always_among_them() -> None:
    """Whoever asks it has found it, whatever the metadata store says of it."""
    image = brokers()
    image.seen(BeatView(0, (BrokerInfo(1, 5, 0, LEFT, "another", 1),)))
    assert image.serving() == [OWN]


def test_clients_are_not_sent_to_who_answers_nobody() -> None:
    image = brokers()
    heard: list[int] = []
    image.listeners.append(lambda: heard.append(len(image.serving())))
    image.seen(view(broker(2), broker(5)))
    image.refuses(Life(2, 1))
    image.stand_still([Life(5, 1), Life(1, 4)])
    assert image.serving() == [OWN], "whoever asks this one has found it"
    assert (image.get(2), image.get(5)) == (None, None)
    assert image.others_are_available, "who is late, or is about to be followed, is waited for"
    image.accepts(Life(2, 1))
    image.stand_still([])
    assert image.serving() == [OWN, broker(2), broker(5)]
    assert heard == [3, 2, 1, 2, 3]


def test_what_was_said_of_a_life_is_nothing_to_the_next_one() -> None:
    image = brokers()
    image.seen(view(broker(2)))
    image.refuses(Life(2, 1))
    assert image.should_serve(Life(2, 1))
    image.seen(view(broker(2, epoch=2)))
    assert image.serving() == [OWN, broker(2, epoch=2)]
    assert not image.should_serve(Life(2, 1))


def test_one_that_drains_is_there_for_clients_and_takes_nothing() -> None:
    image = brokers()
    assert not image.others_are_available
    image.seen(view(broker(2, DRAINING), broker(3, STARTING), broker(4, LEFT)))
    assert image.serving() == [OWN, broker(2, DRAINING)]
    assert not image.others_are_available
    image.seen(view(broker(2, DRAINING), broker(3)))
    assert image.others_are_available


def test_listeners_hear_of_changes_and_not_of_beats() -> None:
    image = brokers()
    heard: list[int] = []
    image.listeners.append(lambda: heard.append(len(image.serving())))
    image.seen(view())
    assert heard == []
    for beat in range(3):
        image.seen(view(broker(2, beat=beat)))
    assert heard == [2]
    image.seen(view(broker(2, epoch=2)))
    image.seen(view(broker(2, LEFT, epoch=2)))
    assert heard == [2, 2, 1]


def test_images_that_are_behind_are_stale() -> None:
    cluster = brokers()
    old, new = Image(revision=3), Image(revision=4)
    cluster.images += [old, new]
    cluster.seen(view(revision=4))
    assert (old.stale.is_set(), new.stale.is_set()) == (True, False)
    cluster.seen(view(revision=3))
    assert not new.stale.is_set(), "an answer from before its last change"


async def of(cluster, node: int) -> tuple[Membership, Brokers]:
    membership = await next_process(cluster.database, cluster.clock, Ids(node), node, f"host-{node}")
    image = Brokers(membership.identity, f"host-{node}", 9092)
    membership.listeners.append(image.seen)
    return membership, image


async def test_brokers_see_each_other_by_their_beats(cluster) -> None:
    first, seen_by_first = await of(cluster, 1)
    second, seen_by_second = await of(cluster, 2)
    await first.beat()
    assert seen_by_first.get(2) is None, "its port does not answer yet"
    await second.serve()
    await first.serve()
    for membership in (first, second):
        await membership.beat()
    nodes = [[b.node for b in image.serving()] for image in (seen_by_first, seen_by_second)]
    assert nodes == [[1, 2]] * 2
    assert seen_by_first.get(2).host == "host-2"
    await second.leave()
    assert seen_by_first.get(2) is not None
    await first.beat()
    assert seen_by_first.get(2) is None


async def test_what_another_broker_changed_is_there_after_a_beat(cluster) -> None:
    """Topics, and configs, which never noticed it before."""
    membership, image = await of(cluster, 1)
    topics = await cluster.topics(identity=membership.identity)
    configs = BrokerConfigs(cluster.database, membership.identity, {})
    await configs.refresh()
    image.images += [topics, configs]
    keeping = [asyncio.create_task(keep_fresh(each.stale, each.refresh)) for each in (topics, configs)]

    other = BrokerConfigs(cluster.database, cluster.identity, {})
    await other.alter(None, {"log.retention.bytes": "7"})
    await (await cluster.topics()).create("orders", 1, {})
    assert topics.get("orders") is None
    await membership.beat()
    await until(lambda: topics.get("orders") and configs.value("log.retention.bytes") == 7)
    assert topics.revision == configs.revision
    await membership.beat()
    assert not topics.stale.is_set()
    assert not configs.stale.is_set()
    for task in keeping:
        task.cancel()


async def test_our_own_changes_make_nothing_of_ours_stale(cluster) -> None:
    membership, image = await of(cluster, 1)
    configs = BrokerConfigs(cluster.database, membership.identity, {})
    await configs.refresh()
    image.images.append(configs)
    await configs.alter(None, {"log.retention.bytes": "7"})
    await membership.beat()
    assert not configs.stale.is_set()

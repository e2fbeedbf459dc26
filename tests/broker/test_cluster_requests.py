"""What operators are shown of a cluster: who has what, what is on its way, and why something is offline."""

from typing import Any

import pytest

from streamlake.broker.cluster_requests import ClusterRequests
from streamlake.cluster.store.administration import ClusterStatus, Placed
from streamlake.cluster.store.controllers import Term
from streamlake.cluster.store.drains import DrainPart, DrainRow
from streamlake.cluster.store.membership import BrokerInfo
from streamlake.cluster.store.schema import FENCED, LEFT, SERVING
from streamlake.cluster.store.view import ClusterView
from streamlake.cluster.store.wals import WalKey, WalRow
from streamlake.config import Config

OBJECT, PRIVATE, SHARED = "object", "file#abc", "file:///mount?shared=true#abc"


def broker(node: int, state: str = SERVING, epoch: int = 1, drained: bool = False) -> BrokerInfo:
    return BrokerInfo(node, epoch, 7, state, f"host-{node}", 9092, drained)


class Store:
    """Implements what is asked of Administration."""

    def __init__(self, status: ClusterStatus) -> None:
        self._status = status

    async def status(self) -> ClusterStatus:
        return self._status


def requests(
    *placed: Placed,
    brokers: tuple[BrokerInfo, ...] = (broker(0), broker(1), broker(2, FENCED, 2)),
    term: Term | None = None,
    wals: tuple[WalRow, ...] = (),
    drains: tuple[DrainRow, ...] = (),
    **slots: int,
) -> ClusterRequests:
    view = ClusterView(5, {b.node: b for b in brokers}, term, list(wals), list(drains))
    counts = {int(node.removeprefix("of_")): count for node, count in slots.items()}
    config = Config.model_validate({"storage": {"data_dir": "/data"}})
    return ClusterRequests(Store(ClusterStatus(view, list(placed), counts)), config)  # type: ignore[arg-type]


async def offline(*placed: Placed, **state: Any) -> list[dict[str, Any]]:
    return (await requests(*placed, **state).status())["offline"]


async def test_brokers_and_what_they_have() -> None:
    asked = requests(Placed(0, 0, 1, 3), Placed(1, 0, 1, 2), Placed(1, 1, 1, 1), term=Term(1, 1, 4), of_1=256)
    found = await asked.status()
    assert found["controller"] == 1
    assert found["brokers"][:2] == [
        {"node": 0, "state": SERVING, "drained": False, "address": "host-0:9092", "epoch": 1,
         "partitions": 3, "open": 5, "slots": 0},
        {"node": 1, "state": SERVING, "drained": False, "address": "host-1:9092", "epoch": 1,
         "partitions": 3, "open": 1, "slots": 256},
    ]  # fmt: skip
    assert found["moves"] == [{"from": 0, "to": 1, "partitions": 2}]
    assert found["offline"] == found["drains"] == []


async def test_a_controller_that_is_not_there_any_more_is_none() -> None:
    assert (await requests(term=Term(2, 1, 4)).status())["controller"] is None
    assert (await requests().status())["controller"] is None


@pytest.mark.parametrize(
    ("placed", "done"), [(Placed(1, 1, 1, 1), False), (Placed(0, 1, 1, 1), False), (Placed(0, 0, 1, 9), True)]
)
async def test_a_node_is_empty_when_it_has_nothing_and_is_to_have_nothing(placed: Placed, done: bool) -> None:
    assert (await requests(placed).progress(1))["done"] is done
    assert (await requests(placed, of_1=1).progress(1))["done"] is False


async def test_what_a_dead_broker_has_is_offline_until_its_wal_is_drained() -> None:
    placed, wal = Placed(1, 2, 1, 4), WalRow(2, OBJECT, 1, 0)
    (waiting,) = await offline(placed, wals=(wal,))
    assert (waiting["partitions"], waiting["node"]) == (4, 1)
    assert waiting["reason"] == "broker 2 is not there: its write-ahead log is given to others next"
    drains = tuple(DrainRow(DrainPart(wal.key, part, 2), part, 1, done=part == 0) for part in (0, 1))
    asked = requests(placed, wals=(wal,), drains=drains)
    (draining,) = (await asked.status())["offline"]
    assert draining["reason"] == "the write-ahead log of broker 2 is being drained by 1"
    assert (await asked.status())["drains"] == [
        {"node": 2, "wal": OBJECT, "epoch": 1, "part": 1, "parts": 2, "by": 1}
    ]  # fmt: skip


async def test_what_lies_on_a_disk_of_its_own_waits_for_its_broker() -> None:
    (found,) = await offline(Placed(2, 2, 1, 4), wals=(WalRow(2, PRIVATE, 1, 0),))
    assert "on its own disk: start node_id 2 again, where its data directory is" in found["reason"]
    (found,) = await offline(Placed(2, 2, 1, 4), wals=(WalRow(2, SHARED, 1, 0),))
    assert "given to others" in found["reason"]


async def test_a_node_that_came_back_and_its_former_life() -> None:
    """The partitions of its former life are offline, though a broker of that number runs."""
    brokers = (broker(0), broker(2, epoch=3))
    (found,) = await offline(Placed(2, 2, 1, 4), brokers=brokers, wals=(WalRow(2, OBJECT, 1, 0),))
    assert found["partitions"] == 4
    assert await offline(Placed(2, 2, 3, 4), brokers=brokers) == []


@pytest.mark.parametrize("node", [None, 1, 7])
async def test_what_nobody_owns_is_offline_if_nobody_is_to_have_it(node: int | None) -> None:
    (found,) = await offline(Placed(node, None, 0, 1), brokers=(broker(0), broker(1, LEFT)))
    assert "not assigned to a broker that runs" in found["reason"]
    assert await offline(Placed(0, None, 0, 1)) == [], "it is being opened"


async def test_of_a_wal_whose_key_is_another_life_nothing_is_said() -> None:
    old = WalKey(2, OBJECT, 1)
    (found,) = await offline(
        Placed(1, 2, 2, 1), brokers=(broker(1), broker(2, FENCED, 4)), wals=(WalRow(*_of(old), 0),)
    )
    assert found["reason"].startswith("broker 2 is not there")


def _of(key: WalKey) -> tuple[int, str, int]:
    return key.node, key.uri, key.epoch

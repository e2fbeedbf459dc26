from support.members import controller, fence

from streamlake.cluster.store.drains import DrainPart, DrainRow, Drains
from streamlake.cluster.store.schema import FENCED
from streamlake.cluster.store.view import read_view
from streamlake.cluster.store.wals import WalRow, Wals


async def test_a_view_shows_all_that_a_controller_decides_by(cluster) -> None:
    dead, us = await cluster.member(5), await cluster.member(1)
    key = await Wals(cluster.database, dead.identity).adopt("object", continues=False)
    before = await read_view(cluster.database)
    assert (before.term, before.drains) == (None, [])
    assert before.is_running(5, 1) and not before.is_running(5, 2) and not before.is_running(7, 1)
    await fence(us, 5)
    term = await controller(us)
    await Drains(cluster.database, us.identity).give(term, key, [us.identity])
    topics = await cluster.topics(us.identity)
    await topics.create("t", 1, {})
    view = await read_view(cluster.database)
    assert view.revision == topics.revision > before.revision
    assert (view.term, view.wals) == (term, [WalRow(5, "object", 1, 0)])
    assert view.drains == [DrainRow(DrainPart(key, 0, 1), 1, us.identity.epoch, False)]
    assert view.brokers[5].state == FENCED and not view.is_running(5, 2)

"""Transactions of a test that stop half-way, and whether another one waits for their locks (PostgreSQL)."""

import asyncio
import threading

from sqlalchemy import text
from support.wait import DEADLINE_S

from streamlake.cluster.store.database import Database


async def until(condition) -> None:
    """Poll; the test's own timeout ends a wait for ever."""
    while not await condition():
        await asyncio.sleep(0.005)


class Held:
    """Keeps a transaction open on its thread, until `let_go`."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self._go = threading.Event()

    def __call__(self) -> None:
        self.inside.set()
        assert self._go.wait(DEADLINE_S)

    def let_go(self) -> None:
        self._go.set()


async def waiting_for_a_lock(database: Database) -> bool:
    """Some session waits for another one's."""
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    return bool(await database.read(lambda c: c.execute(query).scalar_one()))

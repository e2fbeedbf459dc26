"""Commits on demand: who reads a table waits for a commit of what is durable by then.

    ask        a reader waits; all who ask before the next look at the log share one commit
    begin      the look that follows covers them
    committed  they brought something into the table
    done       all of it is committed, or there was nothing to commit

Commits on demand keep a distance, as each makes small files and a snapshot; a look that finds nothing to commit makes
none, and keeps nobody waiting. After a commit of somebody else there are none for a while: it would be lost to ours
again and again, since each attempt begins with a load.

A snapshot that a reader waits for is dated before the reader's question. DuckDB shows a transaction no snapshot that is
younger than the transaction, so an honest date would show it only to the next one.
"""

import asyncio
import contextlib

WAIT_S_MAX = 2.0
DISTANCE_S = 0.25
FOREIGN_PAUSE_S = 30.0
DATED_BEFORE_S = 0.5  # a transaction may begin so long before it asks: it may have asked for other tables first


class Flush:
    """Of one table, on the loop. Times are the loop's."""

    def __init__(self) -> None:
        self._asked: asyncio.Future[None] | None = None
        self._begun: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self._begun_at = self._rests_until = self._paused_until = self._asked_at = float("-inf")
        self._date = 0.0

    async def ask(self) -> None:
        """Until what is durable now is committed; at most WAIT_S_MAX, and not at all during a pause."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._paused_until:
            return
        if self._asked is None:
            self._asked, self._asked_at = loop.create_future(), loop.time()
            self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S_MAX):
                await asyncio.shield(self._asked)

    def pause(self) -> None:
        """Somebody else tries to commit to the table."""
        self._paused_until = asyncio.get_running_loop().time() + FOREIGN_PAUSE_S

    async def wait(self, timeout_s: float) -> None:
        """Sleep, but no longer than until the next flush may begin."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
                await asyncio.sleep(self._rests_until - asyncio.get_running_loop().time())

    def begin(self) -> None:
        """Called before each look at the log, which shows all that was durable when the waiting readers asked."""
        now = asyncio.get_running_loop().time()
        if self._asked is not None and now >= self._rests_until:
            if not self._begun:
                self._date = self._asked_at - DATED_BEFORE_S
            self._begun.append(self._asked)
            self._begun_at = now
            self._asked = None
            self._wake.clear()

    @property
    def begun(self) -> bool:
        return bool(self._begun)

    @property
    def age_s(self) -> float:
        """How old the snapshot shall look that those who wait are waiting for."""
        return asyncio.get_running_loop().time() - self._date if self._begun else 0.0

    def committed(self) -> None:
        if self._begun:
            self._rests_until = self._begun_at + DISTANCE_S

    def done(self) -> None:
        """The readers that `begin` took up go on, to whatever the table shows now."""
        begun, self._begun = self._begun, []
        for asked in begun:
            asked.set_result(None)

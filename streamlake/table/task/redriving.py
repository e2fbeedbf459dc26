"""The redrives of one table task: one at a time, asked for, or left undone by an earlier worker; what is told of them.

A redrive stops no table. One that needs a person ends with its reason, and its order is taken back; so does one that
fails again and again, as soon as the table can be committed to.
"""

import asyncio

from streamlake.core.budget import Budget
from streamlake.core.errors import Conflict, Fenced, Invalid, OutcomeUnknown, StreamLakeError, describe
from streamlake.core.tasks import Executor
from streamlake.table.formats.converted import MESSAGE_CHARS_MAX
from streamlake.table.task.control import RedriveReport
from streamlake.table.task.redrive import Order, Redrive
from streamlake.table.task.topic_table import TopicTable

ASK_TIMEOUT_S = 60.0
FAILURES_MAX = 5  # in a row, of a step


class Redriving:
    """`report`: of the last redrive, None if there was none."""

    def __init__(self, table: TopicTable, executor: Executor, budget: Budget) -> None:
        self.report: RedriveReport | None = None
        self._table = table
        self._executor = executor
        self._budget = budget
        self._asked: tuple[Order, asyncio.Future[None]] | None = None
        self._current: Redrive | None = None
        self._failures = 0

    @property
    def is_active(self) -> bool:
        return self._current is not None or self._asked is not None

    async def ask(self, order: Order) -> None:
        """Until the order is durable: from then on it will be done, whoever dies. Raises Conflict: there is one
        already; OutcomeUnknown."""
        if self.is_active:
            raise Conflict("a redrive of this table is under way: wait until it is done")
        begun = asyncio.get_running_loop().create_future()
        self._asked = order, begun
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                await asyncio.shield(begun)
        except TimeoutError:
            if self._asked is not None and self._asked[1] is begun:
                self._asked = None
            raise OutcomeUnknown(
                "the table did not take the order in time: its status says what it waits for"
            ) from None

    def opened(self) -> None:
        """Call after the table was opened: what its dead-letter table says counts."""
        self._current = Redrive.resume(self._table, self._executor, self._budget)
        if self._current is None:
            return
        if self.report is not None and self.report.asked_ms == self._current.order.asked_ms:
            self._current.continue_from(self.report)
        self._tell(self._current, "running")

    async def step(self) -> None:
        """Do some of it. Raises what commits raise: open the table again."""
        if self._current is None and self._asked is not None:
            await self._begin(*self._asked)
        current = self._current
        if current is None:
            return
        try:
            done = await current.step()
        except (Conflict, Fenced, OutcomeUnknown):
            raise
        except Invalid as error:
            await self._give_up(current, str(error))
        except Exception as error:  # whatever a catalog or a store raises: may pass, or not
            self._failures += 1
            if self._failures < FAILURES_MAX:
                raise
            await self._give_up(current, str(error) if isinstance(error, StreamLakeError) else describe(error))
        else:
            self._failures = 0
            self._tell(current, "done" if done else "running")
            self._current = None if done else current

    async def _begin(self, order: Order, begun: "asyncio.Future[None]") -> None:
        redrive = Redrive(self._table, order, self._executor, self._budget)
        try:
            await redrive.begin()
        except BaseException as error:
            if not begun.done():
                begun.set_exception(OutcomeUnknown(f"the order may have been taken or not ({describe(error)})"))
                begun.exception()  # whoever asked may have gone
            raise
        finally:
            self._asked = None
        self._current = redrive
        self._failures = 0
        self._tell(redrive, "running")
        if not begun.done():
            begun.set_result(None)

    async def _give_up(self, redrive: Redrive, why: str) -> None:
        await redrive.finish()
        self._current = None
        self._tell(redrive, "failed", why[:MESSAGE_CHARS_MAX])

    def _tell(self, redrive: Redrive, state: str, message: str = "") -> None:
        counts, order = redrive.counts, redrive.order
        numbers = (counts.redriven, counts.found, counts.still_dead, counts.files_left)
        self.report = RedriveReport(state, order.reasons, *numbers, message, order.asked_ms)

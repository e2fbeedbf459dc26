"""Questions to brokers in batches: those for one broker that come while a request to it is under way share the next.

So one that comes alone waits for nothing, and many that come together cost few requests.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from streamlake.core.errors import Corrupt, Full, StreamLakeError
from streamlake.core.tasks import Supervisor

WAITING_MAX = 10_000  # questions for one broker

Q = TypeVar("Q")
A = TypeVar("A")


class _Asked(NamedTuple, Generic[Q, A]):
    question: Q
    answer: "asyncio.Future[A]"


@dataclass(slots=True, eq=False)
class _Line(Generic[Q, A]):
    """To one broker."""

    waiting: list[_Asked[Q, A]] = field(default_factory=list)
    is_busy: bool = False


class Batches(Generic[Q, A]):
    """`ask(node, questions)` is one request: its answers, in order."""

    def __init__(
        self, ask: Callable[[int, Sequence[Q]], Awaitable[Sequence[A]]], questions_max: int, tasks: Supervisor
    ) -> None:
        """`questions_max`: in one request."""
        self._ask = ask
        self._questions_max = questions_max
        self._tasks = tasks
        self._lines: dict[int, _Line[Q, A]] = {}

    async def answer(self, node: int, question: Q) -> A:
        """Raises what `ask` raises; Full if too many wait."""
        line = self._lines.setdefault(node, _Line())
        if len(line.waiting) >= WAITING_MAX:
            raise Full(f"{WAITING_MAX} questions wait for broker {node} already: try again later")
        asked: _Asked[Q, A] = _Asked(question, asyncio.get_running_loop().create_future())
        line.waiting.append(asked)
        if not line.is_busy:
            line.is_busy = True
            self._tasks.start(f"questions to broker {node}", self._run(node, line))
        return await asked.answer

    async def _run(self, node: int, line: _Line[Q, A]) -> None:
        try:
            while line.waiting:
                some = line.waiting[: self._questions_max]
                del line.waiting[: self._questions_max]
                try:
                    answers = await self._ask(node, [asked.question for asked in some])
                    if len(answers) != len(some):
                        raise Corrupt(f"broker {node} answered {len(some)} questions with {len(answers)} answers")
                    for asked, answer in zip(some, answers, strict=True):
                        if not asked.answer.done():  # else nobody waits any more
                            asked.answer.set_result(answer)
                except StreamLakeError as error:
                    for asked in some:
                        if not asked.answer.done():
                            asked.answer.set_exception(error)
                finally:  # also if this task is cancelled
                    for asked in some:
                        asked.answer.cancel()
        finally:
            line.is_busy = False
            for asked in line.waiting:
                asked.answer.cancel()
            line.waiting.clear()

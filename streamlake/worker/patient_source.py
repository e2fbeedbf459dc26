"""Leaves a schema registry alone for a while when it fails: all tables ask the same one, each as often as it retries.

The pauses grow, and are as long as the registry asks for if it does. Meanwhile every question is answered with the
last error, at once: the tables wait, and no record is judged. Schemas that are compiled need no registry.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

from streamlake.core.clock import Clock
from streamlake.core.errors import Unavailable
from streamlake.core.ids import Ids
from streamlake.core.retry import Backoff
from streamlake.table.formats.port import LatestSchema, SchemaSource, WriterSchema
from streamlake.worker.schema_source import Busy

PAUSE_FIRST_S = 0.2
PAUSE_MAX_S = 15.0
ASKED_FOR_S_MAX = 120.0

T = TypeVar("T")


class PatientSource:
    """Implements SchemaSource."""

    def __init__(self, source: SchemaSource, clock: Clock, ids: Ids) -> None:
        self._source = source
        self._clock = clock
        self._backoff = Backoff(ids, PAUSE_FIRST_S, PAUSE_MAX_S)
        self._lock = threading.Lock()
        self._until = float("-inf")
        self._why = ""

    def get(self, schema_id: int) -> WriterSchema:
        return self._ask(lambda: self._source.get(schema_id))

    def latest(self, subject: str) -> LatestSchema:
        return self._ask(lambda: self._source.latest(subject))

    def _ask(self, question: Callable[[], T]) -> T:
        with self._lock:
            if self._clock.boottime() < self._until:
                raise Unavailable(self._why)
        try:
            answer = question()
        except Unavailable as error:
            self._failed(error)
            raise
        except BaseException:
            self._answered()  # NotFound, Invalid: it has answered
            raise
        self._answered()
        return answer

    def _failed(self, error: Unavailable) -> None:
        with self._lock:
            pause_s = self._backoff.next_delay_s()
            if isinstance(error, Busy):
                pause_s = max(pause_s, min(error.pause_s, ASKED_FOR_S_MAX))
            self._until = max(self._until, self._clock.boottime() + pause_s)
            self._why = str(error)

    def _answered(self) -> None:
        with self._lock:
            self._backoff.reset()

"""A registry that fails is left alone, and asked again."""

from itertools import pairwise
from typing import cast

import pytest
from support.table_world import SCHEMA, Registry

from streamlake.core.errors import NotFound, Unavailable
from streamlake.core.ids import Ids
from streamlake.table.formats.port import SchemaSource
from streamlake.worker import patient_source as module
from streamlake.worker.patient_source import PatientSource
from streamlake.worker.schema_source import Busy


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def boottime(self) -> float:
        return self.now_s

    def now_ms(self) -> int:
        return int(self.now_s * 1000)


class Counting(Registry):
    def __init__(self) -> None:
        super().__init__()
        self.questions = 0
        self.error: Unavailable | None = None

    def get(self, schema_id: int):
        self.questions += 1
        if self.error is not None:
            raise self.error
        return super().get(schema_id)


def made() -> tuple[PatientSource, Counting, Clock]:
    registry, clock = Counting(), Clock()
    return PatientSource(cast(SchemaSource, registry), clock, Ids(3)), registry, clock


def test_answers_pass() -> None:
    source, registry, _ = made()
    assert source.get(1).text == SCHEMA and source.latest("s").id == 2
    for _ in range(3):
        with pytest.raises(NotFound):
            source.get(9)
    assert registry.questions == 5


def test_pauses_grow_to_a_limit_and_end_with_an_answer() -> None:
    source, registry, clock = made()
    registry.error = Unavailable("away")
    asked_at: list[float] = []
    for _ in range(4_000):
        before = registry.questions
        with pytest.raises(Unavailable, match="away"):
            source.get(1)
        if registry.questions > before:
            asked_at.append(clock.now_s)
        clock.now_s += 0.05
    gaps = [b - a for a, b in pairwise(asked_at)]
    assert max(gaps) <= module.PAUSE_MAX_S + 0.1 and max(gaps[-10:]) > 5 > max(gaps[:4])
    registry.error = None
    clock.now_s += module.PAUSE_MAX_S
    assert source.get(1).text == SCHEMA
    registry.error = Unavailable("away again")
    with pytest.raises(Unavailable):
        source.get(1)
    clock.now_s += module.PAUSE_FIRST_S
    before = registry.questions
    with pytest.raises(Unavailable):
        source.get(1)
    assert registry.questions == before + 1  # the first pause is short again


def test_a_pause_that_the_registry_asks_for() -> None:
    source, registry, clock = made()
    for asked_for, pause_s in ((30.0, 30.0), (10_000.0, module.ASKED_FOR_S_MAX)):
        registry.error = Busy("busy", asked_for)
        with pytest.raises(Unavailable):
            source.get(1)
        before, clock.now_s = registry.questions, clock.now_s + pause_s - 1
        with pytest.raises(Unavailable, match="busy"):
            source.get(1)
        assert registry.questions == before
        clock.now_s += 1.1
        registry.error = None
        source.get(1)

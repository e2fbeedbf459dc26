"""The order of a connection, against a model that knows only the rules."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streamlake.protocol.pipeline import Pipeline, Slot

MAX_IN_FLIGHT, MAX_HELD_BYTES = 4, 100


class Connection(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pipeline = Pipeline(MAX_IN_FLIGHT, MAX_HELD_BYTES)
        self.slots: list[Slot] = []  # in flight, oldest first
        self.sizes: list[int] = []
        self.answers: list[bytes | None] = []
        self.expected = b""  # answers in the order of their requests
        self.sent = b""
        self.begun = 0

    def may_start(self) -> bool:
        return self.pipeline.may_start

    @precondition(may_start)
    @rule(size=st.integers(0, 150))
    def begin(self, size: int) -> None:
        assert not self.slots or self.slots[-1].released, "the one before runs still"
        assert len(self.slots) < MAX_IN_FLIGHT
        assert not self.slots or self.pipeline.held_bytes < MAX_HELD_BYTES
        self.slots.append(self.pipeline.begin(size))
        self.sizes.append(size)
        self.answers.append(None)
        self.begun += 1

    @precondition(lambda self: any(not s.released for s in self.slots))
    @rule()
    def release(self) -> None:
        next(s for s in self.slots if not s.released).release()

    @precondition(lambda self: any(not s.finished for s in self.slots))
    @rule(data=st.data(), has_answer=st.booleans(), size=st.integers(0, 60))
    def finish(self, data: st.DataObject, has_answer: bool, size: int) -> None:
        at = data.draw(st.sampled_from([i for i, s in enumerate(self.slots) if not s.finished]))
        answer = bytes([self.begun % 256]) * size if has_answer else b""
        self.slots[at].finish([answer[:3], answer[3:]] if has_answer else None)
        self.answers[at] = answer

    @rule()
    def take(self) -> None:
        self.sent += b"".join(self.pipeline.take_ready())
        while self.answers and self.answers[0] is not None:
            self.expected += self.answers.pop(0) or b""
            self.slots.pop(0)
            self.sizes.pop(0)

    @invariant()
    def answers_leave_in_the_order_of_their_requests(self) -> None:
        assert self.sent == self.expected

    @invariant()
    def what_is_held_is_counted(self) -> None:
        held = sum(size if a is None else len(a) for size, a in zip(self.sizes, self.answers, strict=True))
        assert self.pipeline.held_bytes == held

    @invariant()
    def progress_is_always_possible(self) -> None:
        if not self.slots:
            assert self.pipeline.may_start and self.pipeline.may_read(10**9)
        if self.pipeline.held_bytes >= MAX_HELD_BYTES or len(self.slots) == MAX_IN_FLIGHT:
            assert not self.slots or not (self.pipeline.may_start or self.pipeline.may_read(0))


TestConnection = Connection.TestCase
TestConnection.settings = settings(max_examples=150, stateful_step_count=40)


def test_requests_run_one_after_another() -> None:
    """OffsetCommit, then LeaveGroup in one TCP segment: the second must not overtake (hazard C15)."""
    pipeline = Pipeline(5, 1000)
    commit = pipeline.begin(10)
    assert not pipeline.may_start and pipeline.may_read(0)
    commit.finish([b"committed"])
    assert pipeline.may_start


def test_a_released_request_lets_the_next_start_and_its_answer_leaves_first() -> None:
    pipeline = Pipeline(5, 1000)
    first = pipeline.begin(10)
    first.release()
    pipeline.begin(10).finish([b"second"])
    assert pipeline.take_ready() == []
    first.finish([b"first"])
    assert pipeline.take_ready() == [b"first", b"second"]
    assert pipeline.held_bytes == 0


def test_waiting_bytes_stop_reading_while_something_runs() -> None:
    pipeline = Pipeline(5, 100)
    slot = pipeline.begin(60)
    assert pipeline.may_read(39) and not pipeline.may_read(40)
    slot.finish(None)
    assert pipeline.take_ready() == [] and pipeline.may_read(10**9)


def test_misuse_is_a_bug() -> None:
    pipeline = Pipeline(5, 100)
    slot = pipeline.begin(1)
    with pytest.raises(AssertionError):
        pipeline.begin(1)
    slot.finish(None)
    with pytest.raises(AssertionError):
        slot.finish(None)

"""The order of a connection, against a model that knows only the rules."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streamlake.core.account import Account
from streamlake.protocol.pipeline import Pipeline, Slot

MAX_IN_FLIGHT, MAX_HELD_BYTES = 4, 100
MEMORY_BYTES = 150  # of all connections


class Connection(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.memory = Account(MEMORY_BYTES)
        self.others_bytes = 0  # what other connections hold
        self.pipeline = Pipeline(MAX_IN_FLIGHT, MAX_HELD_BYTES, self.memory)
        self.slots: list[Slot] = []  # in flight, oldest first
        self.sizes: list[int] = []
        self.answers: list[bytes | None] = []
        self.expected = b""  # answers in the order of their requests
        self.sent = b""
        self.unsent_bytes = 0
        self.buffered_bytes = 0
        self.begun = 0

    def may_start(self) -> bool:
        return self.pipeline.may_start

    @precondition(may_start)
    @rule(size=st.integers(0, 150))
    def begin(self, size: int) -> None:
        assert not self.slots or self.slots[-1].released, "the one before runs still"
        assert len(self.slots) < MAX_IN_FLIGHT
        empty = not self.slots and not self.unsent_bytes
        assert empty or self.pipeline.held_bytes - self.buffered_bytes < MAX_HELD_BYTES
        assert empty or self.memory.held_bytes < MEMORY_BYTES
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
        taken = b"".join(self.pipeline.take_ready())
        self.sent += taken
        self.unsent_bytes += len(taken)
        while self.answers and self.answers[0] is not None:
            self.expected += self.answers.pop(0) or b""
            self.slots.pop(0)
            self.sizes.pop(0)

    @rule()
    def have_been_sent(self) -> None:
        self.pipeline.sent()
        self.unsent_bytes = 0

    @rule(size=st.integers(0, 80))
    def buffer(self, size: int) -> None:
        self.pipeline.buffer(size)
        self.buffered_bytes = size

    @rule(size=st.integers(0, 200))
    def others(self, size: int) -> None:
        self.memory.count(size - self.others_bytes)
        self.others_bytes = size

    @invariant()
    def answers_leave_in_the_order_of_their_requests(self) -> None:
        assert self.sent == self.expected

    @invariant()
    def what_is_held_is_counted(self) -> None:
        held = sum(size if a is None else len(a) for size, a in zip(self.sizes, self.answers, strict=True))
        held += self.unsent_bytes + self.buffered_bytes
        assert self.pipeline.held_bytes == held
        assert self.memory.held_bytes == held + self.others_bytes

    @invariant()
    def progress_is_always_possible(self) -> None:
        if not self.slots and not self.unsent_bytes:
            assert self.pipeline.may_start and self.pipeline.may_read
            return
        if self.memory.held_bytes >= MEMORY_BYTES or len(self.slots) == MAX_IN_FLIGHT:
            assert not self.pipeline.may_start and not self.pipeline.may_read
        if self.pipeline.held_bytes >= MAX_HELD_BYTES:
            assert not self.pipeline.may_read

    def teardown(self) -> None:
        """The connection is lost: only requests that are not finished yet count."""
        self.pipeline.close()
        unfinished = [(s, size) for s, size, a in zip(self.slots, self.sizes, self.answers, strict=True) if a is None]
        assert self.pipeline.held_bytes == sum(size for _, size in unfinished)
        for slot, _ in unfinished:
            slot.finish([b"nobody reads it"])
        assert self.pipeline.held_bytes == 0 and self.memory.held_bytes == self.others_bytes


TestConnection = Connection.TestCase
TestConnection.settings = settings(max_examples=150, stateful_step_count=40)


def test_requests_run_one_after_another() -> None:
    """OffsetCommit, then LeaveGroup in one TCP segment: the second must not overtake (hazard C15)."""
    pipeline = Pipeline(5, 1000, Account(1000))
    commit = pipeline.begin(10)
    assert not pipeline.may_start and pipeline.may_read
    commit.finish([b"committed"])
    assert pipeline.may_start


def test_a_released_request_lets_the_next_start_and_its_answer_leaves_first() -> None:
    pipeline = Pipeline(5, 1000, Account(1000))
    first = pipeline.begin(10)
    first.release()
    pipeline.begin(10).finish([b"second"])
    assert pipeline.take_ready() == []
    first.finish([b"first"])
    assert pipeline.take_ready() == [b"first", b"second"]
    assert pipeline.held_bytes == len(b"firstsecond"), "until they are sent"
    pipeline.sent()
    assert pipeline.held_bytes == 0


def test_waiting_bytes_stop_reading_while_something_runs() -> None:
    pipeline = Pipeline(5, 100, Account(1000))
    slot = pipeline.begin(60)
    pipeline.buffer(39)
    assert pipeline.may_read
    pipeline.buffer(40)
    assert not pipeline.may_read
    slot.finish(None)
    pipeline.buffer(10**9)
    assert pipeline.take_ready() == [] and pipeline.may_read, "it may be a part of one frame"


def test_misuse_is_a_bug() -> None:
    pipeline = Pipeline(5, 100, Account(1000))
    slot = pipeline.begin(1)
    with pytest.raises(AssertionError):
        pipeline.begin(1)
    slot.finish(None)
    with pytest.raises(AssertionError):
        slot.finish(None)

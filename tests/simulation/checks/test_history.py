"""Each check of one partition's history: a true story passes, the same with one lie in it does not."""

import pytest
from simulation.checks.history import Mark, Place, Violation
from simulation.checks.ledger import Batch, Series
from simulation.plan.story import TOPIC_ID, Story, header, stored


def test_a_true_story() -> None:
    story = Story()
    series = Series(1, 0)
    first, second = story.draft(2, series), story.draft(3, series)
    attempt, again = story.ledger.attempt(first), story.ledger.attempt(first)
    story.ledger.attempt(second).acked(2)
    attempt.unknown("the connection broke")
    again.acked(0)
    story.read(first, 0)
    story.read(second, 2)
    story.read(second, 2)
    plain = story.draft(1)
    for offset in (5, 6):
        story.ledger.attempt(plain).acked(offset)
    story.read(plain, 5)
    history = story.ledger.partition(story.place)
    assert [history.at[offset].key for offset in range(7)] == [b"k0", b"k1", b"k2", b"k3", b"k4", b"k5", b"k5"]


def sent(story: Story) -> Batch:
    batch = story.draft()
    story.ledger.attempt(batch).unknown("no answer yet")
    return batch


def test_an_offset_never_shows_another_value() -> None:
    story = Story()
    story.acked(0)
    with pytest.raises(Violation, match="has two values"):
        story.read(sent(story), 0)


def test_what_is_read_is_what_was_sent() -> None:
    story = Story()
    batch = story.acked(0)
    (record,) = stored(batch, 0)
    for lie in (
        record._replace(value=b"other"),
        record._replace(value=None),
        record._replace(timestamp=1),
        record._replace(headers=(("h", b""),)),
    ):
        with pytest.raises(Violation):
            story.ledger.read(story.place, header(batch, 0), [lie])


def test_nobody_reads_what_nobody_sent() -> None:
    story = Story()
    batch = story.acked(0)
    (record,) = stored(batch, 0)
    with pytest.raises(Violation, match="nobody sent"):
        story.ledger.read(story.place, header(batch, 0), [record._replace(key=b"?")])


def test_a_record_stays_in_its_partition() -> None:
    story = Story(partitions=2)
    batch = story.acked(0)
    with pytest.raises(Violation, match="another partition"):
        story.ledger.read(Place(TOPIC_ID, 1), header(batch, 0), stored(batch, 0))


def test_a_stored_batch_keeps_its_leader_epoch() -> None:
    story = Story()
    batch = story.acked(0)
    story.read(batch, 0, leader_epoch=3)
    with pytest.raises(Violation, match="leader epoch 4"):
        story.read(batch, 0, leader_epoch=4)


def test_an_idempotent_producers_record_is_there_once() -> None:
    story = Story()
    batch = story.draft(2, Series(1, 0))
    story.ledger.attempt(batch).unknown("lost")
    story.ledger.attempt(batch).acked(4)
    with pytest.raises(Violation, match="at most 1 times"):
        story.read(batch, 2)


def test_an_idempotent_producers_records_are_in_order() -> None:
    for lie in (9, 31):
        story = Story()
        series = Series(1, 0)
        first, second, third = (story.draft(1, series) for _ in range(3))
        story.ledger.attempt(first).acked(10)
        story.ledger.attempt(third).acked(30)
        with pytest.raises(Violation, match="out of order"):
            story.ledger.attempt(second).acked(lie)


def test_a_plain_producers_record_is_there_as_often_as_it_was_sent_at_most() -> None:
    story = Story()
    batch = story.draft(1)
    story.ledger.attempt(batch).unknown("lost")
    story.ledger.attempt(batch).acked(1)
    story.read(batch, 0)
    with pytest.raises(Violation, match="at most 2 times"):
        story.read(batch, 2)


def test_a_certain_failure_leaves_nothing() -> None:
    story = Story()
    batch = story.draft(1)
    story.ledger.attempt(batch).refused("NOT_ENOUGH_REPLICAS")
    with pytest.raises(Violation, match="at most 0 times"):
        story.read(batch, 0)


def test_a_failure_that_is_told_after_the_record_was_read() -> None:
    story = Story()
    batch = story.draft(1)
    attempt = story.ledger.attempt(batch)
    story.read(batch, 0)
    with pytest.raises(Violation, match="at most 0 times"):
        attempt.refused("INVALID_RECORD")


def test_a_broken_batch_is_never_taken() -> None:
    story = Story()
    batch = story.draft(1, legal=False)
    attempt = story.ledger.attempt(batch)
    with pytest.raises(Violation, match="broken batch was acknowledged"):
        attempt.acked(0)
    unread = story.draft(1, legal=False)
    story.ledger.attempt(unread).unknown("no answer")
    with pytest.raises(Violation, match="at most 0 times"):
        story.read(unread, 1)


class TestMark:
    PLACE = Place(TOPIC_ID, 0)

    def answered(self, mark: Mark, epoch: int, value: int, floor: int | None = None) -> None:
        mark.answered(self.PLACE, epoch, value, mark.floor(epoch) if floor is None else floor)

    def test_it_grows(self) -> None:
        mark = Mark("m")
        for epoch, value in ((1, 5), (1, 5), (1, 7), (3, 7), (3, 9)):
            self.answered(mark, epoch, value)
        assert mark.highest == 9

    def test_it_never_goes_back_within_an_epoch(self) -> None:
        mark = Mark("m")
        self.answered(mark, 1, 5)
        with pytest.raises(Violation, match="went back"):
            self.answered(mark, 1, 4)

    def test_answers_of_questions_that_crossed_may_come_in_any_order(self) -> None:
        mark = Mark("m")
        early = mark.floor(1)
        self.answered(mark, 1, 5)
        self.answered(mark, 1, 4, floor=early)

    def test_a_newer_epoch_never_begins_below_an_older_one(self) -> None:
        mark = Mark("m")
        early = mark.floor(2)
        self.answered(mark, 1, 5)
        with pytest.raises(Violation, match="went back"):
            self.answered(mark, 2, 4, floor=early)  # no matter when it was asked

    def test_a_superseded_leader_may_answer_old_numbers_but_not_new_ones(self) -> None:
        mark = Mark("m")
        self.answered(mark, 1, 5)
        self.answered(mark, 2, 8)
        self.answered(mark, 1, 5)
        self.answered(mark, 1, 8)
        with pytest.raises(Violation, match="superseded"):
            self.answered(mark, 1, 9)

    def test_an_unknown_epoch_promises_nothing(self) -> None:
        mark = Mark("m")
        self.answered(mark, 1, 5)
        self.answered(mark, -1, 2)
        assert mark.floor(1) == 5

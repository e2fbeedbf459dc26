"""Checks that span partitions: topics, ids, where a log may start. A lie for each."""

import pytest
from simulation.checks.ledger import Violation
from simulation.plan.story import NOW_MS, TOPIC, TOPIC_ID, Story


def test_an_id_belongs_to_one_topic() -> None:
    story = Story()
    with pytest.raises(Violation, match="created with the id"):
        story.ledger.created(TOPIC_ID, TOPIC, 1)
    with pytest.raises(Violation, match="is called"):
        story.ledger.saw_topic(TOPIC_ID, "other", 1)


def test_a_producer_id_is_given_once() -> None:
    story = Story()
    story.ledger.gave_producer_id(5)
    with pytest.raises(Violation, match="given twice"):
        story.ledger.gave_producer_id(5)


def test_a_schema_has_one_id_and_an_id_one_schema() -> None:
    story = Story()
    story.ledger.registered(1, "a")
    story.ledger.registered(1, "a")
    with pytest.raises(Violation, match="was given to"):
        story.ledger.registered(1, "b")
    with pytest.raises(Violation, match="schema ids"):
        story.ledger.registered(2, "a")


@pytest.mark.parametrize("number", ["high_watermark", "last_stable_offset"])
def test_offsets_told_to_readers_never_go_back(number: str) -> None:
    story = Story()
    story.tell(1, **{number: 5})
    with pytest.raises(Violation, match="went back"):
        story.tell(1, **{number: 4})


def test_the_last_stable_offset_is_not_above_the_high_watermark() -> None:
    with pytest.raises(Violation, match="above high watermark"):
        Story().tell(1, high_watermark=5, last_stable_offset=6)


class TestOutOfRange:
    def test_below_the_start_and_above_the_end_it_is_right(self) -> None:
        story = Story()
        story.ledger.deletes_records(TOPIC, 0, 10)
        story.tell(1, high_watermark=20)
        asked = story.ledger.ask(story.place, 1)
        story.ledger.out_of_range(asked, 5, log_start_offset=10)
        story.ledger.out_of_range(asked, 21, log_start_offset=10)

    def test_a_leader_may_not_refuse_what_was_readable(self) -> None:
        story = Story()
        story.tell(1, high_watermark=20)
        asked = story.ledger.ask(story.place, 2)
        with pytest.raises(Violation, match="out of range"):
            story.ledger.out_of_range(asked, 20, log_start_offset=0)

    def test_a_superseded_leader_may_not_know_the_end(self) -> None:
        story = Story()
        story.tell(1, high_watermark=10)
        story.tell(2, high_watermark=20)
        story.ledger.out_of_range(story.ledger.ask(story.place, 1), 15, log_start_offset=0)
        with pytest.raises(Violation, match="out of range"):
            story.ledger.out_of_range(story.ledger.ask(story.place, 1), 9, log_start_offset=0)


class TestLogStart:
    def test_it_never_goes_back(self) -> None:
        story = Story()
        story.ledger.deletes_records(TOPIC, 0, -1)
        story.tell(1, log_start_offset=5)
        with pytest.raises(Violation, match="went back"):
            story.tell(2, log_start_offset=4)

    def test_it_moves_only_if_somebody_asked(self) -> None:
        story = Story()
        story.ledger.deletes_records(TOPIC, 0, 5)
        story.ledger.deletes_records(TOPIC, 1, 9)
        story.tell(1, log_start_offset=5)
        with pytest.raises(Violation, match="nobody asked for retention"):
            story.tell(1, log_start_offset=6)

    def test_retention_by_age_takes_only_what_is_old(self) -> None:
        story = Story()
        story.ledger.retains(TOPIC, ms=1_000)
        story.ledger.retains(TOPIC, ms=60_000)  # what was asked for before may still be at work
        story.acked(0, count=3)
        story.clock.ms = NOW_MS + 2_000
        story.acked(3, count=3)
        story.tell(1, log_start_offset=3)
        with pytest.raises(Violation, match="younger than 1000 ms"):
            story.tell(1, log_start_offset=4)

    def test_retention_that_keeps_all_is_no_reason(self) -> None:
        story = Story()
        story.ledger.retains(TOPIC, ms=-1, size_bytes=-1)
        with pytest.raises(Violation, match="nobody asked for retention"):
            story.tell(1, log_start_offset=1)

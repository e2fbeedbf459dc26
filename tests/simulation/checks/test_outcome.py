"""The final checks: a true end passes, and each lie about it is caught."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
from simulation.actors.values import Dead, Row
from simulation.checks.ledger import Batch, Series, Violation
from simulation.checks.outcome import DeadLetter, FinalLog, TableRow, check_log, check_objects, check_table
from simulation.plan.story import TOPIC, Story, stored


def final(story: Story, *batches: tuple[Batch, int], start: int = 0, size_bytes: int = 0) -> FinalLog:
    """A log that holds these batches there; the reader that found it so wrote it down, as checks.read_log does."""
    records = {}
    for batch, base_offset in batches:
        story.read(batch, base_offset)
        records |= {r.offset: r for r in stored(batch, base_offset) if r.offset >= start}
    return FinalLog(story.place, start, max(records, default=start - 1) + 1, records, size_bytes)


class TestLog:
    def test_a_true_log(self) -> None:
        story = Story()
        series = Series(1, 0)
        first, second = story.acked(0, 2, series), story.acked(2, 3, series)
        plain = story.acked(5)
        check_log(story.ledger, final(story, (first, 0), (second, 2), (plain, 5)))

    def test_a_gap(self) -> None:
        story = Story()
        first, second = story.acked(0), story.acked(2)
        with pytest.raises(Violation, match="lacks"):
            check_log(story.ledger, final(story, (first, 0), (second, 2)))

    def test_an_acknowledged_record_is_lost_at_the_end(self) -> None:
        story = Story()
        first = story.acked(0)
        story.acked(1)
        with pytest.raises(Violation, match="lost is"):
            check_log(story.ledger, final(story, (first, 0)))

    def test_a_record_that_a_reader_saw_is_lost(self) -> None:
        story = Story()
        first, second = story.acked(0), story.draft()
        story.ledger.attempt(second).unknown("lost")
        story.read(second, 1)
        with pytest.raises(Violation, match="lost is"):
            check_log(story.ledger, final(story, (first, 0)))

    def test_another_value(self) -> None:
        story = Story()
        log = final(story, (story.acked(0), 0))
        with pytest.raises(Violation, match="there was"):
            check_log(story.ledger, replace(log, records={0: log.records[0]._replace(value=b"other")}))

    def test_the_end_went_back(self) -> None:
        story = Story()
        story.tell(1, high_watermark=5)
        with pytest.raises(Violation, match="readers were told 5"):
            check_log(story.ledger, final(story, (story.acked(0), 0)))

    def test_the_start_went_back(self) -> None:
        story = Story()
        story.ledger.deletes_records(TOPIC, 0, 1)
        story.tell(1, log_start_offset=1)
        with pytest.raises(Violation, match="readers were told 1"):
            check_log(story.ledger, final(story, (story.acked(0), 0)))

    def test_leader_epochs_went_back(self) -> None:
        story = Story()
        first, second = story.acked(0), story.acked(1)
        story.read(first, 0, leader_epoch=2)
        log = FinalLog(story.place, 0, 2, {0: stored(first, 0)[0], 1: stored(second, 1)[0]})
        story.read(second, 1, leader_epoch=1)
        with pytest.raises(Violation, match="has leader epoch 1"):
            check_log(story.ledger, log)

    def test_half_a_batch(self) -> None:
        story = Story()
        batch = story.draft(2)
        story.ledger.attempt(batch).unknown("lost")
        other = story.acked(1)
        (record, _) = stored(batch, 0)
        story.ledger.partition(story.place).found(batch.records[0], 0, "read")
        log = replace(final(story, (other, 1)), records={0: record, 1: stored(other, 1)[0]})
        with pytest.raises(Violation, match="part of a batch"):
            check_log(story.ledger, log)

    def test_a_batch_that_is_known_to_be_stored_is_nowhere(self) -> None:
        story = Story()
        batch = story.draft(1, Series(1, 0))
        story.ledger.attempt(batch).duplicate()
        with pytest.raises(Violation, match="said to be stored"):
            check_log(story.ledger, final(story))

    def test_a_hole_in_a_series(self) -> None:
        story = Story()
        series = Series(1, 0)
        first, lost, third = story.acked(0, 1, series), story.draft(1, series), story.acked(1, 1, series)
        story.ledger.attempt(lost).unknown("lost")
        with pytest.raises(Violation, match="is nowhere"):
            check_log(story.ledger, final(story, (first, 0), (third, 1)))

    @pytest.mark.parametrize("start", [1, 2])
    def test_a_hole_in_a_series_that_begins_below_the_log_start(self, start: int) -> None:
        """At 1, which is deleted, may be what nobody has read. It is certainly not between 0 and 1."""
        story = Story()
        series = Series(1, 0)
        story.acked(0, 1, series)
        unread, third = story.draft(1, series), story.acked(start, 1, series)
        story.ledger.attempt(unread).unknown("lost")
        story.ledger.deletes_records(TOPIC, 0, start)
        story.tell(start, log_start_offset=start)
        log = final(story, (third, start), start=start)
        with nullcontext() if start == 2 else pytest.raises(Violation, match="is nowhere"):
            check_log(story.ledger, log)

    def test_a_series_without_its_beginning(self) -> None:
        story = Story()
        series = Series(1, 0)
        lost, second = story.draft(1, series), story.acked(0, 1, series)
        story.ledger.attempt(lost).unknown("lost")
        with pytest.raises(Violation, match="is nowhere"):
            check_log(story.ledger, final(story, (second, 0)))

    def test_what_retention_took_is_no_hole(self) -> None:
        story = Story()
        series = Series(1, 0)
        story.ledger.deletes_records(TOPIC, 0, 2)
        unseen, second = story.draft(2, series), story.acked(2, 1, series)
        story.ledger.attempt(unseen).unknown("lost")
        check_log(story.ledger, final(story, (second, 2), start=2))

    def test_retention_by_size_took_too_much(self) -> None:
        story = Story()
        story.ledger.retains(TOPIC, size_bytes=100)
        batch = story.acked(5)
        check_log(story.ledger, final(story, (batch, 5), start=5, size_bytes=100))
        with pytest.raises(Violation, match="keeps 99 bytes"):
            check_log(story.ledger, final(story, (batch, 5), start=5, size_bytes=99))


class TestTable:
    """Offset 0 is a row, offset 1 a dead letter, offset 2 a row as it came."""

    def story(self) -> tuple[Story, list[TableRow], list[DeadLetter]]:
        story = Story()
        story.acked(0, meaning=Row({"n": 1, "note": None}))
        story.acked(1, meaning=Dead("cut"))
        story.acked(2)
        rows = [TableRow(0, 0, b"k0", {"n": 1, "later": None}), TableRow(0, 2, b"k2", {"value": "v2"})]
        return story, rows, [DeadLetter(0, 1, b"k1", b"v1")]

    def test_a_true_table(self) -> None:
        story, rows, dead = self.story()
        check_table(story.ledger, story.facts, rows, dead)

    def test_a_missing_row(self) -> None:
        story, rows, dead = self.story()
        with pytest.raises(Violation, match="not in the table"):
            check_table(story.ledger, story.facts, rows[1:], dead)
        check_table(story.ledger, story.facts, rows[1:], dead, complete=False)

    def test_a_missing_dead_letter(self) -> None:
        story, rows, _ = self.story()
        with pytest.raises(Violation, match="not in the table"):
            check_table(story.ledger, story.facts, rows, [])

    def test_deleted_records_may_be_missing(self) -> None:
        story, rows, dead = self.story()
        story.ledger.deletes_records(TOPIC, 0, 1)
        check_table(story.ledger, story.facts, rows[1:], dead)

    def test_what_came_before_the_topic_was_a_table_may_be_missing(self) -> None:
        story, rows, dead = self.story()
        check_table(story.ledger, story.facts, rows[1:], dead, {0: 1})
        with pytest.raises(Violation, match="not in the table"):
            check_table(story.ledger, story.facts, rows[1:], [], {0: 1})

    def test_a_row_twice(self) -> None:
        story, rows, dead = self.story()
        with pytest.raises(Violation, match="twice"):
            check_table(story.ledger, story.facts, [*rows, rows[0]], dead)

    def test_a_row_that_is_also_a_dead_letter(self) -> None:
        story, rows, dead = self.story()
        with pytest.raises(Violation, match="twice"):
            check_table(story.ledger, story.facts, rows, [*dead, DeadLetter(0, 0, b"k0", b"v0")])

    def test_a_good_record_as_a_dead_letter(self) -> None:
        story, rows, dead = self.story()
        with pytest.raises(Violation, match="good record is a dead letter"):
            check_table(story.ledger, story.facts, rows[1:], [*dead, DeadLetter(0, 0, b"k0", b"v0")])

    def test_a_bad_record_as_a_row(self) -> None:
        story, rows, _ = self.story()
        with pytest.raises(Violation, match="bad record"):
            check_table(story.ledger, story.facts, [*rows, TableRow(0, 1, b"k1", {"n": 1})], [])

    @pytest.mark.parametrize("columns", [{"n": 2}, {}, {"n": 1, "more": 1}])
    def test_other_values(self, columns: dict[str, object]) -> None:
        story, rows, dead = self.story()
        with pytest.raises(Violation, match="sent was"):
            check_table(story.ledger, story.facts, [replace(rows[0], columns=columns), rows[1]], dead)

    def test_another_raw_value(self) -> None:
        story, rows, dead = self.story()
        with pytest.raises(Violation, match="sent was"):
            check_table(story.ledger, story.facts, [rows[0], replace(rows[1], columns={"value": b"v0"})], dead)
        with pytest.raises(Violation, match="a dead letter holds"):
            check_table(story.ledger, story.facts, rows, [replace(dead[0], value=b"other")])

    def test_a_row_at_another_offset(self) -> None:
        story, rows, dead = self.story()
        with pytest.raises(Violation, match="has two values"):
            check_table(story.ledger, story.facts, [replace(rows[0], offset=2), replace(rows[1], offset=0)], dead)

    def test_a_row_that_nobody_sent(self) -> None:
        story, rows, dead = self.story()
        with pytest.raises(Violation, match="nobody sent"):
            check_table(story.ledger, story.facts, [*rows, TableRow(0, 3, b"?", {})], dead)


class TestObjects:
    KNOWN = {"data/1": True, "data/2": False}

    def test_a_true_store(self) -> None:
        check_objects({"data/1": 900.0, "data/2": 900.0, "data/3": 10.0}, self.KNOWN, young_s=60)

    def test_a_committed_object_is_gone(self) -> None:
        with pytest.raises(Violation, match="not in the store"):
            check_objects({"data/2": 1.0}, self.KNOWN, young_s=60)

    def test_an_object_leaked(self) -> None:
        with pytest.raises(Violation, match="known to nobody"):
            check_objects({"data/1": 1.0, "data/3": 61.0}, self.KNOWN, young_s=60)

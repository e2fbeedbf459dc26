"""What one round has read: rows of many partitions, the position of each partition after it, and what left no row.

Every log position of the round is accounted for: a row, a dead letter, or a skip with its reason. The account is
checked before anything is committed, because a position that is in none of them would be lost for ever.
"""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from streamlake.core.errors import Invalid
from streamlake.record.arrow import RECORDS_SCHEMA, BadBatch, DecodedRecords
from streamlake.table.commit.progress import DELETED, Progress
from streamlake.table.task.settled import SettledDeadLetters

SCHEMA = RECORDS_SCHEMA.append(pa.field("partition", pa.int32(), nullable=False))


@dataclass(slots=True)
class Round:
    """`start`: the positions of the partitions before it. `caught_up`: it has all that its last look showed. `age_s`:
    how much older than it is its snapshot shall look (flush.py)."""

    start: Progress
    positions: dict[int, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    bad_batches: list[tuple[int, BadBatch]] = field(default_factory=list)
    dead_positions: int = 0  # of the bad batches
    size_bytes: int = 0
    caught_up: bool = False
    age_s: float = 0.0
    fetched: list[Any] = field(default_factory=list)  # pa.Table of SCHEMA

    def position(self, partition: int) -> int:
        return self.positions.get(partition, self.start.position(partition))

    def skip(self, reason: str, count: int) -> None:
        if count:
            self.skipped[reason] = self.skipped.get(reason, 0) + count

    def check_log(self, partition: int, log_start_offset: int, last_stable_offset: int) -> None:
        """Compare with the offsets that the log reports: positions it no longer has are skipped. Raises Invalid if it
        ends before our position: then it is not the log that the table was made from."""
        position = self.position(partition)
        if last_stable_offset < position:
            raise Invalid(
                f"partition {partition} of the log ends at offset {last_stable_offset}, but the table holds it up to "
                f"{position}: the log lost data. To continue, give the topic a new table (streamlake.table.name)"
            )
        if log_start_offset > position:
            self.skip(DELETED, log_start_offset - position)
            self.positions[partition] = log_start_offset

    def add(self, partition: int, decoded: DecodedRecords, size_bytes: int) -> None:
        """Add the records of one fetch from `position(partition)`."""
        position = self.position(partition)
        for batch in decoded.bad_batches:
            self.bad_batches.append((partition, batch))
            self.dead_positions += batch.last_offset + 1 - max(batch.base_offset, position)
        for reason, count in decoded.skipped.items():
            self.skip(reason, count)
        if decoded.table.num_rows:
            number = pa.repeat(pa.scalar(partition, pa.int32()), decoded.table.num_rows)
            self.fetched.append(decoded.table.append_column(SCHEMA.field("partition"), number))
        self.positions[partition] = decoded.next_offset
        self.size_bytes += size_bytes

    @property
    def has_progress(self) -> bool:
        return any(self.start.position(p) != position for p, position in self.positions.items())

    def records(self) -> Any:
        """All rows in one table of SCHEMA."""
        return pa.concat_tables(self.fetched) if self.fetched else SCHEMA.empty_table()

    def new_bad_batches(self, settled: SettledDeadLetters) -> list[tuple[int, BadBatch]]:
        """The bad batches that are not dead letters already."""
        return [(p, batch) for p, batch in self.bad_batches if (p, batch.last_offset) not in settled]

    def check_account(self, rows: int, rowless: int) -> None:
        """Every position between start and end must be accounted for, or the round must not be committed. `rowless`:
        of the records that were read, those without a row."""
        advance = sum(position - self.start.position(p) for p, position in self.positions.items())
        accounted = rows + rowless + self.dead_positions + sum(self.skipped.values())
        if advance != accounted:
            raise AssertionError(f"a round of {advance} positions accounts for {accounted}: nothing was committed")

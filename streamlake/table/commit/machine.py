"""Exactly once: what a committer concludes from what it sees in the table. Sans-IO.

    load → resume_from → commit once → landed
                       └ any error: unknown → load → landed | did not land: commit again | overtaken: drop the round

Every answer of a catalog but success is *unknown*, a conflict too: it may be the echo of our own landed commit. Only
the table itself, loaded again, tells. Its progress carries the committer's epoch and a running number, so it equals
ours after the commit only if that commit landed, and ours before it only if nothing did; else another committer was
faster, and the round is dropped. No files are ever deleted here: those of an attempt in doubt may belong to the table.
"""

from dataclasses import dataclass
from enum import Enum

from streamlake.core.errors import Fenced, Invalid, OutcomeUnknown
from streamlake.core.ids import Ids
from streamlake.core.retry import Backoff
from streamlake.table.commit.progress import Progress, beginning

ATTEMPTS_MAX = 5
DELAY_FIRST_S = 0.1
DELAY_MAX_S = 30.0


def table_backoff(ids: Ids) -> Backoff:
    """The pauses of a table: before a commit is looked for again, and before a task that failed starts over."""
    return Backoff(ids, DELAY_FIRST_S, DELAY_MAX_S)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who commits: one cluster's topic, by the committer of `epoch`."""

    cluster_id: str
    topic: str
    topic_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class ObservedTable:
    """The table as a load showed it. `rows` is False only if it surely holds none; `schema_id` is the current one;
    `head` the snapshot of branch main."""

    exists: bool
    uuid: str = ""
    progress: Progress | None = None
    rows: bool = False
    schema_id: int = 0
    head: int | None = None


def resume_from(observed: ObservedTable, owner: Owner, committed_once: bool, table: str) -> Progress:
    """Where to resume. Raises Fenced if a newer committer was here, Invalid if rows could be lost or repeated.

    "Not found although we committed" is never zero: appending the whole topic again would double the table. A table
    of an earlier topic of the same name (or of another cluster) is taken over only while it holds no rows, because
    (topic, partition, offset) would name two records."""
    progress = observed.progress
    start = beginning(owner.cluster_id, owner.topic, owner.topic_id, owner.epoch)
    if progress is None:
        if committed_once:
            what = "no longer shows what StreamLake committed to it" if observed.exists else "is gone from the catalog"
            raise Invalid(
                f"table {table} {what}: restore it from a backup or an older snapshot, or drop it, then disable and "
                "enable the table of this topic to build it again from the log"
            )
        return start
    if (progress.cluster_id, progress.topic_id) != (owner.cluster_id, owner.topic_id):
        if observed.rows or committed_once:
            raise Invalid(
                f"table {table} holds rows of topic {progress.topic} with id {progress.topic_id} of cluster "
                f"{progress.cluster_id}, not of this topic: drop or rename it, or set streamlake.table.name"
            )
        return start
    if progress.epoch > owner.epoch:
        raise Fenced(f"table {table} has a newer committer, epoch {progress.epoch}: this one, {owner.epoch}, stops")
    return progress


class Step(Enum):
    LOAD = "load"
    COMMIT = "commit"
    LANDED = "landed"
    OVERTAKEN = "overtaken"


@dataclass(frozen=True, slots=True)
class Effect:
    """What to do next; before LOAD wait `delay_s`. LANDED and OVERTAKEN end the commit."""

    step: Step
    delay_s: float = 0.0


class CommitMachine:
    """One commit of one table, from `before` to `after`: (event) → effect.

    `base` is the table that the change was built for: another uuid or schema now, and the change does not fit. Nor does
    it with another head, if it was made of what that head holds (`of_head`): rows that somebody else added."""

    def __init__(
        self, before: Progress, after: Progress, base: ObservedTable, backoff: Backoff, of_head: bool = False
    ) -> None:
        self._before = before
        self._after = after
        self._base = base
        self._backoff = backoff
        self._of_head = of_head

    def start(self) -> Effect:
        return Effect(Step.LOAD)

    def loaded(self, observed: ObservedTable, progress: Progress) -> Effect:
        """`progress` is what `resume_from` said of `observed`."""
        if observed.progress == self._after:
            return Effect(Step.LANDED)
        if progress != self._before or (observed.uuid, observed.schema_id) != (self._base.uuid, self._base.schema_id):
            return Effect(Step.OVERTAKEN)
        if self._of_head and observed.head != self._base.head:
            return Effect(Step.OVERTAKEN)
        return Effect(Step.COMMIT)

    def committed(self) -> Effect:
        return Effect(Step.LANDED)

    def failed(self, error: str) -> Effect:
        """A load or the commit raised: whether it landed is unknown. Raises OutcomeUnknown when it is time to
        release the memory of the round and start over later."""
        delay_s = self._backoff.next_delay_s()
        if self._backoff.failures >= ATTEMPTS_MAX:
            raise OutcomeUnknown(f"commit failed {ATTEMPTS_MAX} times, the last time with {error}")
        return Effect(Step.LOAD, delay_s)

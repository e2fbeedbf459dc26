from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.core.errors import Fenced, Invalid, OutcomeUnknown
from streamlake.core.ids import Ids
from streamlake.table.commit.machine import (
    ATTEMPTS_MAX,
    CommitMachine,
    ObservedTable,
    Owner,
    Step,
    resume_from,
    table_backoff,
)
from streamlake.table.commit.progress import Progress, beginning

OWNER = Owner("c", "t", "id", 3)
BEFORE = Progress("c", "t", "id", 3, 4, (10,), {})
AFTER = BEFORE.advanced(3, {0: 20}, {})
OTHERS = [
    None,
    BEFORE,
    AFTER,
    BEFORE.advanced(3, {0: 15}, {}),
    BEFORE.advanced(2, {0: 20}, {}),
    Progress("c", "t", "id", 4, 9, (20,), {}),
]


def observed(
    progress: Progress | None, *, exists: bool = True, rows: bool = True, uuid: str = "u", schema: int = 0
) -> ObservedTable:
    return ObservedTable(exists, uuid, progress, rows, schema)


def machine(before: Progress = BEFORE, after: Progress = AFTER) -> CommitMachine:
    return CommitMachine(before, after, observed(before), table_backoff(Ids(1)))


@pytest.mark.parametrize(
    ("seen", "committed_once", "expected"),
    [
        (observed(None, exists=False), False, 0),
        (observed(None, rows=False), False, 0),
        (observed(None), False, 0),  # somebody's table: we append to it
        (observed(None, exists=False), True, "is gone from the catalog"),
        (observed(None), True, "no longer shows"),
        (observed(None, rows=False), True, "no longer shows"),
        (observed(BEFORE), False, 10),
        (observed(BEFORE), True, 10),
        (observed(Progress("c", "t", "old", 9, 1, (5,), {})), False, "holds rows of topic t with id old"),
        (observed(Progress("c", "t", "old", 9, 1, (5,), {}), rows=False), False, 0),
        (observed(Progress("c", "t", "old", 9, 1, (5,), {}), rows=False), True, "holds rows"),
        (observed(Progress("x", "t", "id", 1, 1, (5,), {})), False, "of cluster x"),
    ],
)
def test_where_to_go_on(seen: ObservedTable, committed_once: bool, expected: int | str) -> None:
    if isinstance(expected, int):
        assert resume_from(seen, OWNER, committed_once, "default.t").position(0) == expected
    else:
        with pytest.raises(Invalid, match=expected) as error:
            resume_from(seen, OWNER, committed_once, "default.t")
        assert "default.t" in str(error.value)


def test_a_newer_committer_fences() -> None:
    with pytest.raises(Fenced, match="epoch 4"):
        resume_from(observed(Progress("c", "t", "id", 4, 1, (5,), {})), OWNER, True, "x")


def test_the_happy_way_looks_first_and_commits_once() -> None:
    m = machine()
    assert m.start().step is Step.LOAD
    assert m.loaded(observed(BEFORE), BEFORE).step is Step.COMMIT
    assert m.committed().step is Step.LANDED


@pytest.mark.parametrize(
    ("seen", "step"),
    [
        (observed(AFTER), Step.LANDED),
        (observed(BEFORE), Step.COMMIT),
        (observed(BEFORE.advanced(3, {0: 15}, {})), Step.OVERTAKEN),
        (observed(BEFORE, uuid="another table"), Step.OVERTAKEN),
        (observed(BEFORE, schema=1), Step.OVERTAKEN),
    ],
)
def test_after_any_error_only_the_table_tells(seen: ObservedTable, step: Step) -> None:
    m = machine()
    m.loaded(observed(BEFORE), BEFORE)
    assert m.failed("CommitFailedException: stale").step is Step.LOAD
    assert seen.progress is not None
    assert m.loaded(seen, seen.progress).step is step


def test_a_first_commit_to_a_table_without_progress_is_not_taken_for_landed() -> None:
    start = beginning("c", "t", "id", 3)
    m = CommitMachine(start, start.advanced(3, {}, {}), observed(None), table_backoff(Ids(1)))
    assert m.loaded(observed(None), start).step is Step.COMMIT


def test_a_commit_that_moves_no_position_is_not_taken_for_landed() -> None:
    m = machine(after=BEFORE.advanced(3, {}, {}))
    assert m.loaded(observed(BEFORE), BEFORE).step is Step.COMMIT


def test_what_was_made_of_a_heads_rows_lands_on_that_head_alone() -> None:
    base = replace(observed(BEFORE), head=1)
    for of_head, step in ((True, Step.OVERTAKEN), (False, Step.COMMIT)):
        found = CommitMachine(BEFORE, AFTER, base, table_backoff(Ids(1)), of_head)
        assert found.loaded(base, BEFORE).step is Step.COMMIT
        assert found.loaded(replace(base, head=2), BEFORE).step is step
        assert found.loaded(replace(observed(AFTER), head=2), AFTER).step is Step.LANDED


def test_it_lets_go_after_some_attempts_and_says_why() -> None:
    m = machine()
    for _ in range(ATTEMPTS_MAX - 1):
        m.failed("x")
        assert m.loaded(observed(BEFORE), BEFORE).step is Step.COMMIT
    with pytest.raises(OutcomeUnknown, match="no route"):
        m.failed("ConnectionError: no route")


@given(st.lists(st.sampled_from(["error", *range(len(OTHERS))]), max_size=12))
def test_any_story_lands_at_most_what_the_table_shows(story: list[object]) -> None:
    """LANDED only if the table shows exactly our progress; COMMIT only on exactly the state we came from."""
    m = machine()
    effect = m.start()
    for event in story:
        if effect.step in (Step.LANDED, Step.OVERTAKEN):
            break
        if effect.step is Step.COMMIT or event == "error":
            try:
                effect = m.failed("x")
            except OutcomeUnknown:
                return
            assert effect.delay_s > 0
            continue
        seen = OTHERS[event]
        effect = m.loaded(observed(seen), seen or beginning("c", "t", "id", 3))
        assert (effect.step is Step.LANDED) == (seen == AFTER)
        assert (effect.step is Step.COMMIT) == (seen == BEFORE)

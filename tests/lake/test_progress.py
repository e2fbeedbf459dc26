"""How far tables are, and what ends a wait."""

import pytest
from support.wait import DEADLINE_S

from streamlake.core.errors import Invalid, Unavailable
from streamlake.lake.progress import all_of_topic, at_least, describe, wait


def report(topic="a", rows=0, done=0, end=0, **more):
    return {
        "topic": topic, "topic_id": topic, "table": f"default.{topic}", "state": "running", "message": "",
        "rows": rows, "dead_letters": 0, "lag": end - done,
        "partitions": [{"partition": 0, "log_start": 0, "log_end": end, "in_table": done or None}], **more,
    }  # fmt: skip


def test_describe():
    assert describe(report()) == "running, its topic has no records yet"
    assert describe(report(rows=9, end=1, dead_letters=2)) == "running, 1 record of its topic to go; 2 dead letters"
    assert describe(report(rows=9, message="slow")) == "running, 0 records of its topic to go; slow"


def test_all_of_a_topic_is_what_it_had_at_the_start():
    goal = all_of_topic(report(end=5))
    assert not goal.reached(report(done=4, end=5))
    assert goal.reached(report(done=5, end=9))


def test_retention_counts_as_done():
    deleted = report(done=0, end=5)
    deleted["partitions"][0]["log_start"] = 5
    assert all_of_topic(report(end=5)).reached(deleted)


def test_rows_are_counted_in_words():
    assert at_least(1).words == "1 row" and at_least(1000).words == "1,000 rows"
    assert at_least(2).reached(report(rows=2)) and not at_least(2).reached(report(rows=1))
    assert not at_least(1).reached(report(rows=None))


def test_waits_until_all_are_there_and_says_once_for_which():
    answers = iter([[report("a"), report("b", 1)], [report("a"), report("b", 1)], [report("a", 1), report("b", 1)]])
    heard = []
    goals = {"a": at_least(1), "b": at_least(1)}
    there = wait(lambda: next(answers), goals, DEADLINE_S, waiting=lambda b: heard.append([r["topic"] for r in b]))
    assert [r["rows"] for r in there] == [1, 1]
    assert heard == [["a"]]


def test_after_the_time_it_says_how_far_the_table_is():
    with pytest.raises(
        Unavailable,
        match=r"^after 0 s table default.a does not yet hold 2 rows: running, 3 records of its topic to go. Go on.$",
    ):
        wait(lambda: [report(rows=1, end=3)], {"a": at_least(2)}, 0, "Go on.")


@pytest.mark.parametrize("state", ["failed", "fenced"])
def test_a_table_that_waiting_does_not_help(state):
    with pytest.raises(Invalid, match=f"table default.a is {state}: its reason"):
        wait(lambda: [report(state=state, message="its reason")], {"a": at_least(1)}, DEADLINE_S)


def test_a_topic_that_is_deleted_is_not_waited_for():
    assert wait(list, {"a": at_least(1)}, DEADLINE_S) == []

"""How far tables are, in words, and waiting until they are far enough. Reports are tables as /v1/tables has them."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from streamlake.core.errors import Invalid, Unavailable

POLL_S = 0.1
STUCK = ("failed", "fenced")  # no waiting helps

Report = dict[str, Any]


class Goal(NamedTuple):
    """What a table shall hold."""

    words: str
    reached: Callable[[Report], bool]


def all_of_topic(report: Report) -> Goal:
    """The records that its topic has now: as rows, or as dead letters."""
    ends = {p["partition"]: p["log_end"] for p in report["partitions"]}

    def reached(later: Report) -> bool:
        done = {p["partition"]: max(p["in_table"] or 0, p["log_start"]) for p in later["partitions"]}
        return all(done.get(partition, end) >= end for partition, end in ends.items())

    return Goal("all of its topic", reached)


A_COMMIT = Goal("a commit", lambda report: report["metadata_location"] is not None)


def at_least(rows: int) -> Goal:
    return Goal(f"{rows:,} row{'s' * (rows != 1)}", lambda report: (report["rows"] or 0) >= rows)


def wait(
    read: Callable[[], list[Report]],
    goals: Mapping[str, Goal],
    timeout_s: float,
    advice: str = "",
    waiting: Callable[[list[Report]], None] = lambda behind: None,
) -> list[Report]:
    """Until the tables of these topic ids have reached their goals; all tables as they are then.

    `waiting` hears once for which, if any. Invalid for a table that waiting does not help, Unavailable after the time,
    with `advice`. A topic that is deleted meanwhile is not waited for."""
    deadline, heard = time.perf_counter() + timeout_s, False
    while True:
        reports = read()
        behind = [r for r in reports if r["topic_id"] in goals and not goals[r["topic_id"]].reached(r)]
        if not behind:
            return reports
        if stuck := [r for r in behind if r["state"] in STUCK]:
            raise Invalid(f"table {stuck[0]['table']} is {stuck[0]['state']}: {stuck[0]['message']}")
        if time.perf_counter() > deadline:
            first = behind[0]
            raise Unavailable(
                f"after {timeout_s:g} s table {first['table']} does not yet hold {goals[first['topic_id']].words}: "
                f"{describe(first)}. {advice}".rstrip()
            )
        if not heard:
            waiting(behind)
            heard = True
        time.sleep(POLL_S)  # noqa: TID251 - a person waits here, not an event loop


def describe(report: Report) -> str:
    """In a few words how far a table is."""
    lag = report["lag"]
    words = [f"{report['state']}, {lag:,} record{'s' * (lag != 1)} of its topic to go"]
    if not lag and not report["rows"] and not report["dead_letters"]:
        words = [f"{report['state']}, its topic has no records yet"]
    if report["dead_letters"]:
        words.append(f"{report['dead_letters']:,} dead letters")
    if report["message"]:
        words.append(report["message"])
    return "; ".join(words)

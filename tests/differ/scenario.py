"""The list of scenarios: functions that ask one broker, run on Kafka and on StreamLake in turn.

    @scenario
    def names_twice(side: Side) -> None:
        side.newest("a name twice", ApiKey.CREATE_TOPICS, creation("twice", "twice"))

Each has topics and groups of its own. An answer's label (API, version, note) is unique in the whole run.
"""

from collections.abc import Callable
from typing import Any

from differ.side import Side

Scenario = Callable[[Side], None]
SCENARIOS: list[Scenario] = []


def scenario(run: Scenario) -> Scenario:
    SCENARIOS.append(run)
    return run


def answers(port: int, run: Scenario) -> dict[str, Any]:
    side = Side(port)
    try:
        run(side)
    finally:
        side.close()
    return side.answers

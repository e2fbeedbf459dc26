"""What plans draw: every kind of trouble exists, and what belongs to clusters is met often enough, and not everywhere."""

import pytest
from simulation.actors.strikes import Strikes
from simulation.actors.trouble import Trouble
from simulation.plan import plan
from simulation.plan.plan import LOCAL_WAL, Plan, draw_plan


def plans(count: int = 400) -> list[Plan]:
    return [draw_plan(str(seed)) for seed in range(count)]


def test_a_plan_is_a_function_of_its_seed() -> None:
    assert plans(20) == plans(20)


def test_every_trouble_that_is_drawn_can_be_made() -> None:
    drawn = {kind for plan in plans() for kind in plan.troubles}
    assert {"zombie", "parted", "failover", "frozen", "power_cut", "kill_worker"} <= drawn
    assert all(callable(getattr(Trouble, kind)) for kind in drawn)


def test_every_strike_is_drawn_and_can_be_made() -> None:
    struck = [plan for plan in plans() if plan.strikes]
    drawn = {kind for plan in struck for kind in plan.strikes}
    assert drawn == {name for name in vars(Strikes) if name[0] != "_" and name != "run"}
    assert {kind for plan in struck for kind in plan.strikes if plan.brokers == 1} == {"sent_again"}
    assert 0 < len(struck) < 400 / 2


def test_most_lives_have_one_broker_and_some_have_up_to_five() -> None:
    brokers = [plan.brokers for plan in plans()]
    assert brokers.count(1) > len(brokers) / 2
    assert {1, 2, 3, 5} == set(brokers)


def test_one_host_has_one_broker_and_nothing_to_fail_over() -> None:
    embedded = [plan for plan in plans() if plan.embedded]
    assert all((plan.brokers, plan.loses_commits, plan.wals) == (1, False, ("file",)) for plan in embedded)


def test_brokers_that_serve_one_after_the_other_leave_no_records_on_a_disk_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "TOGETHER", False)
    assert all(LOCAL_WAL not in plan.wals for plan in plans() if plan.brokers > 1)

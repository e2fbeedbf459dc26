import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from simulation import run
from simulation.plan.plan import draw_plan


def lived(seed: str, *violations: str) -> run.Result:
    return {"seed": seed, "violations": list(violations), "facts": {"acked": 5}, "plan": "Plan()"}


def pretend(monkeypatch: pytest.MonkeyPatch, *results: run.Result | BaseException | None) -> None:
    def on_all_cores(*_: Any) -> Iterator[run.Result | None]:
        for result in results:
            if isinstance(result, BaseException):
                raise result
            yield result

    monkeypatch.setattr(run, "on_all_cores", on_all_cores)


def test_clean_lives_are_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch, lived("1"), None, lived("2"))
    assert run.campaign(1, 2, None, False, False) == 0
    assert "2 of 2 seeds from 1, 0 failed" in (told := capsys.readouterr().out)
    assert "10 acked" in told


def test_a_seed_that_fails_is_told_with_how_to_live_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, lived("1"), lived("2", "Violation: lost", "more", "more", "more"))
    assert run.campaign(1, 2, "fence-deleted", False, False) == 1
    told = capsys.readouterr().out
    assert "Violation: lost" in told and "… and 1 more" in told
    assert "failed: 2; live it again: make sim SEED=2 BUG=fence-deleted" in told


def test_stop_at_the_first_that_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch, lived("1", "Violation: lost"), AssertionError("nobody asks for more"))
    assert run.campaign(1, 2, None, False, True) == 1
    assert "1 of 2 seeds" in capsys.readouterr().out


def test_ctrl_c_ends_it_with_what_is_known(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch, lived("1"), KeyboardInterrupt())
    assert run.campaign(1, 2, None, False, False) == run.INTERRUPTED
    assert "1 of 2 seeds" in capsys.readouterr().out


def test_progress_is_told_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "TOLD_EVERY_S", 0.0)
    pretend(monkeypatch, lived("1"), None)
    run.campaign(1, 2, None, False, False)
    assert "1 of 2 lives, 0 failed" in capsys.readouterr().out


def end_of(task: int) -> run.Result:
    """Runs in a process of its own."""
    if task == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"task": task, "process": os.getpid()}


def test_a_process_that_dies_is_told_and_the_others_go_on() -> None:
    results = run.on_all_cores(end_of, lambda task: {"task": task, "process": None}, range(1, 6), 2, 1)
    found = [result for result in results if result is not None]
    assert [result["task"] for result in found] == [1, 2, 3, 4, 5]
    assert [result["process"] is None for result in found] == [False, True, False, False, False]
    assert found[2]["process"] == found[3]["process"] != found[4]["process"], "a fresh one after two tasks"


def test_a_seed_whose_process_dies_has_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, lived("1"), run.died(("2", None, False)))
    assert run.campaign(1, 2, None, False, False) == 1
    assert "seed 2 fails" in (told := capsys.readouterr().out) and "the process that lived it died" in told


def test_the_table_of_bugs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    hit = {"bug": "fence-deleted", "seed": 7, "lives": 7, "violation": "lost is record 5"}
    missed = {"bug": "ack-after-lease", "seed": None, "lives": 9, "violation": "not found"}
    pretend(monkeypatch, hit, missed)
    assert run.all_bugs(1, 9) == 1
    told = capsys.readouterr().out
    assert "lost is record 5" in told and "1 not found by 9 seeds from 1" in told


def test_lives_of_one_broker_may_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def on_all_cores(_: Any, __: Any, tasks: list[tuple[str, None, bool]], *___: int) -> Iterator[run.Result]:
        asked.extend(seed for seed, _, _ in tasks)
        yield from (lived(seed) for seed in asked)

    monkeypatch.setattr(run, "on_all_cores", on_all_cores)
    assert run.campaign(1, 5, None, False, False, several=True) == 0
    assert len(asked) == 5
    assert all(draw_plan(str(seed)).brokers > 1 for seed in asked)

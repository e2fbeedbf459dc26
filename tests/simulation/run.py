"""Run simulated lives: `make sim SEEDS=2000`, or one again: `make sim SEED=17`, with every step of it in a file:
`python tests/simulation/run.py --seed 17 --trace 17.txt`.

Seeds are spread over all cores (`--processes`), each in a process that lives many of them. A seed that fails is printed
with what was violated and how to live it again; one whose process died has failed, too. `--check` lives each seed twice
and compares. `--seed 17.2` lives the plan of 17 with other chance. `--several` leaves out lives with one broker. `--bug NAME` plants a bug (bugs/); `--bugs` lives the seeds
with every one of them, until one finds it, and prints what it took. Exit code: 0 if all is well, 1 if a seed failed or a bug was not found, 130 after Ctrl-C.
"""

import argparse
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SEEDS_PER_PROCESS = 100  # then a fresh one: whatever libraries keep for a process does not add up
SHOWN_CHARS = 4000
SHOWN_VIOLATIONS = 3
TOLD_EVERY_S = 10.0
INTERRUPTED = 130
DIED = "the process that lived it died: no violation, and nobody knows why (too little memory?)"

Result = dict[str, Any]


def one(task: tuple[str, str | None, bool]) -> Result:
    """A life in a worker process, as plain facts."""
    from simulation import bugs
    from simulation.life import run_seed

    seed, bug, twice = task
    with bugs.planted(bug):
        outcome, _ = run_seed(seed)
        violations = list(outcome.violations)
        if twice and run_seed(seed)[0].digest != outcome.digest:
            violations.append("two lives of this seed differ: something in it does not come from the seed")
    return {"seed": seed, "violations": violations, "facts": outcome.facts, "plan": str(outcome.plan)}


def died(task: tuple[str, str | None, bool]) -> Result:
    return {"seed": task[0], "violations": [DIED], "facts": {}, "plan": "its plan was not told"}


def hunt(task: tuple[str, int, int]) -> Result:
    """The first of these seeds that finds this bug, in a worker process."""
    from simulation import bugs

    name, first, count = task
    bug = bugs.BUGS[name]
    for seed in range(first, first + count):
        violations = one((str(seed), name, False))["violations"]
        if (found := bugs.found(bug, violations)) is not None:
            return {"bug": name, "seed": seed, "lives": seed - first + 1, "violation": found}
    return {"bug": name, "seed": None, "lives": count, "violation": "not found"}


def hunt_died(task: tuple[str, int, int]) -> Result:
    return {"bug": task[0], "seed": None, "lives": task[2], "violation": DIED}


class Lane:
    """A process that works on one task at a time, so that it is known on which one it died."""

    def __init__(self, work: Callable[[Any], Result], tasks_max: int) -> None:
        """After `tasks_max` a fresh process follows."""
        self._work = work
        self._tasks_max = tasks_max
        self._pool: ProcessPoolExecutor | None = None
        self._begun = 0

    def begin(self, task: Any) -> "Future[Result]":
        if self._pool is None or self._begun == self._tasks_max:
            self.close()
            self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _ignore_interrupts)
        self._begun += 1
        return self._pool.submit(self._work, task)

    def close(self) -> None:
        """What it is working on is given up."""
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
            self._pool.shutdown()
        self._pool, self._begun = None, 0


def on_all_cores(
    work: Callable[[Any], Result], died: Callable[[Any], Result], tasks: Sequence[Any], per_process: int, processes: int
) -> Iterator[Result | None]:
    """Results as they come; None now and then while none comes. `died`: the result of a task whose process did, as one
    does that takes too much memory; the others go on."""
    waiting, lanes = iter(tasks), [Lane(work, per_process) for _ in range(min(processes, len(tasks)))]
    running: dict[Future[Result], tuple[Lane, Any]] = {}
    try:
        for lane in lanes:
            task = next(waiting)
            running[lane.begin(task)] = lane, task
        while running:
            done, _ = wait(running, TOLD_EVERY_S, FIRST_COMPLETED)
            if not done:
                yield None
            for future in done:
                lane, task = running.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    lane.close()
                    result = died(task)
                for following in itertools.islice(waiting, 1):
                    running[lane.begin(following)] = lane, following
                yield result
    finally:
        for lane in lanes:
            lane.close()


def _ignore_interrupts() -> None:
    """Ctrl-C reaches the whole group of processes: the parent alone ends the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Teller:
    """Progress: a bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, what: str, total: int) -> None:
        self.console = Console(soft_wrap=True, highlight=False)
        self._what = what
        self._total = total
        self._done = 0
        self._started = self._told = time.monotonic()
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
        self._bar = Progress(*columns, TimeRemainingColumn(), console=self.console)
        self._task = self._bar.add_task(what, total=total, note="")

    def __enter__(self) -> "Teller":
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop() if self.console.is_terminal else None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def advance(self, by: int, note: str) -> None:
        self._done += by
        self._bar.update(self._task, completed=self._done, note=note)
        now = time.monotonic()
        if not self.console.is_terminal and now - self._told >= TOLD_EVERY_S:
            self._told = now
            self.console.print(f"{self._done} of {self._total} {self._what}, {note}, {self.seconds:.0f} s")


def again(seed: str, bug: str | None) -> str:
    return f"make sim SEED={seed}" + (f" BUG={bug}" if bug else "")


def show(result: Result, bug: str | None, console: Console) -> None:
    console.print(f"[bold red]seed {result['seed']} fails[/]: {result['plan']}")
    for violation in result["violations"][:SHOWN_VIOLATIONS]:
        console.print(violation[:SHOWN_CHARS], markup=False)
    if (more := len(result["violations"]) - SHOWN_VIOLATIONS) > 0:
        console.print(f"… and {more} more")
    console.print(f"live it again: {again(result['seed'], bug)}", markup=False)


def with_several_brokers(first: int) -> Iterator[int]:
    """The seeds from `first` on whose plans have more than one."""
    from simulation.plan.plan import draw_plan

    return (n for n in itertools.count(first) if draw_plan(str(n)).brokers > 1)


def campaign(
    first: int, count: int, bug: str | None, twice: bool, stop_at_first: bool, several: bool = False, processes: int = 1
) -> int:
    totals: Counter[str] = Counter()
    failed: list[str] = []
    lived, code = 0, 0
    seeds = with_several_brokers(first) if several else itertools.count(first)
    tasks = [(str(n), bug, twice) for n in itertools.islice(seeds, count)]
    with Teller("lives", count) as teller:
        try:
            for result in on_all_cores(one, died, tasks, SEEDS_PER_PROCESS, processes):
                if result is not None:
                    lived += 1
                    totals.update(result["facts"])
                    if result["violations"]:
                        failed.append(result["seed"])
                        show(result, bug, teller.console)
                teller.advance(0 if result is None else 1, f"{len(failed)} failed")
                if failed and stop_at_first:
                    break
        except KeyboardInterrupt:
            code = INTERRUPTED
    facts = ", ".join(f"{value:,} {name}" for name, value in sorted(totals.items()))
    teller.console.print(
        f"{lived} of {count} seeds from {first}, {len(failed)} failed, {teller.seconds:.0f} s: {facts}"
    )
    for seed in failed:
        teller.console.print(f"failed: {seed}; live it again: {again(seed, bug)}", markup=False)
    return code or (1 if failed else 0)


def all_bugs(first: int, count: int, processes: int = 1) -> int:
    """Every planted bug against the same seeds, each until one finds it."""
    from simulation.bugs import BUGS

    tasks = [(name, first, count) for name in BUGS]
    missed, code = 0, 0
    with Teller("bugs", len(BUGS)) as teller:
        try:
            for result in on_all_cores(hunt, hunt_died, tasks, 1, processes):
                if result is not None:
                    missed += result["seed"] is None
                    lives = "-" if result["seed"] is None else result["lives"]
                    teller.console.print(
                        f"{result['bug']:34} {lives:>4} lives  {result['violation'][:200]}", markup=False
                    )
                teller.advance(0 if result is None else 1, f"{missed} not found")
        except KeyboardInterrupt:
            code = INTERRUPTED
    teller.console.print(f"{len(BUGS)} bugs, {missed} not found by {count} seeds from {first}, {teller.seconds:.0f} s")
    return code or (1 if missed else 0)


def single(seed: str, bug: str | None, trace: Path | None) -> int:
    from simulation import bugs
    from simulation.life import run_seed

    console = Console(soft_wrap=True, highlight=False)
    with bugs.planted(bug):
        outcome, lines = run_seed(seed, keep_trace=trace is not None)
    if trace is not None:
        trace.write_text("\n".join(lines.lines or []) + "\n")
    result = {"seed": seed, "violations": outcome.violations, "plan": str(outcome.plan)}
    lived = f"{outcome.virtual_s:.0f} virtual s, {outcome.steps:,} steps, {outcome.facts}"
    console.print(f"seed {seed}, {outcome.plan}: {lived}")
    console.print(f"trace {outcome.digest}")
    if outcome.violations:
        show(result, bug, console)
    return 1 if outcome.violations else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, help="how many: 100; with --bugs 200 at most")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seed", nargs="+", help="live these only; print what they did and what is violated")
    parser.add_argument("--trace", type=Path, help="with --seed: write every step to this file")
    parser.add_argument("--check", action="store_true", help="live each seed twice and compare the traces")
    parser.add_argument("--bug", help="plant one of the bugs of bugs/")
    parser.add_argument("--bugs", action="store_true", help="plant each of them, and count the lives that find it")
    parser.add_argument("--several", action="store_true", help="leave out seeds whose plan has one broker only")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="at a time: as many as there are cores")
    parser.add_argument("--stop", action="store_true", help="stop at the first seed that fails")
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of texts have an order of their own in every process
        return subprocess.call([sys.executable, *sys.argv], env={**os.environ, "PYTHONHASHSEED": "0"})
    if arguments.seed:
        return max([single(seed, arguments.bug or None, arguments.trace) for seed in arguments.seed])
    if arguments.bugs:
        return all_bugs(arguments.first, arguments.seeds or 200, arguments.processes)
    count, bug = arguments.seeds or 100, arguments.bug or None
    how = arguments.check, arguments.stop, arguments.several, arguments.processes
    return campaign(arguments.first, count, bug, *how)


if __name__ == "__main__":
    sys.exit(main())

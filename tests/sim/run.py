"""Run simulated lives: `make sim SEEDS=2000`, or one again: `python tests/sim/run.py --seed 17 --trace 17.txt`.

Seeds are spread over all cores, each in a process that lives many of them. A seed that fails is printed with what was
violated and how to live it again. `--check` lives each seed twice and compares. `--bug NAME` plants a bug (bugs.py).
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SEEDS_PER_PROCESS = 100  # then a fresh one: whatever libraries keep for a process does not add up
SHOWN_CHARS = 4000


def one(task: tuple[str, str | None, bool]) -> dict[str, Any]:
    """A life in a worker process, as plain facts."""
    from sim import bugs
    from sim.life import run_seed

    seed, bug, twice = task
    with bugs.planted(bug):
        outcome, _ = run_seed(seed)
        violations = list(outcome.violations)
        if twice and run_seed(seed)[0].digest != outcome.digest:
            violations.append("two lives of this seed differ: something in it does not come from the seed")
    return {"seed": seed, "violations": violations, "facts": outcome.facts, "plan": str(outcome.plan)}


def many(seeds: list[str], bug: str | None = None, *, twice: bool = False) -> Iterator[dict[str, Any]]:
    """As they are done, on all cores."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(os.cpu_count(), maxtasksperchild=SEEDS_PER_PROCESS) as pool:
        yield from pool.imap_unordered(one, [(seed, bug, twice) for seed in seeds])


def again(seed: str, bug: str | None) -> str:
    return f"make sim SEED={seed}" + (f" BUG={bug}" if bug else "")


def show(result: dict[str, Any], bug: str | None, console: Console) -> None:
    console.print(f"[bold red]seed {result['seed']} fails[/], {result['plan']}")
    for violation in result["violations"][:3]:
        console.print(violation[:SHOWN_CHARS], markup=False, highlight=False)
    console.print(f"live it again: {again(result['seed'], bug)}", markup=False)


def campaign(first: int, count: int, bug: str | None, twice: bool, stop_at_first: bool) -> int:
    console = Console()
    totals: Counter[str] = Counter()
    failed = []
    started = time.monotonic()
    columns = [TextColumn("lives"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}")]
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("lives", total=count, note="")
        results = many([str(n) for n in range(first, first + count)], bug, twice=twice)
        for result in results:
            totals.update(result["facts"])
            if result["violations"]:
                failed.append(result["seed"])
                show(result, bug, progress.console)
            progress.update(task, advance=1, note=f"{len(failed)} failed")
            if failed and stop_at_first:
                results.close()  # type: ignore[attr-defined]
                break
    facts = ", ".join(f"{value:,} {name}" for name, value in sorted(totals.items()))
    console.print(f"{count} seeds from {first}, {len(failed)} failed, {time.monotonic() - started:.0f} s: {facts}")
    if failed:
        console.print(f"failed: {' '.join(failed)}")
    return 1 if failed else 0


def single(seed: str, bug: str | None, trace: Path | None) -> int:
    from sim import bugs
    from sim.life import run_seed

    console = Console()
    with bugs.planted(bug):
        outcome, lines = run_seed(seed, keep_trace=trace is not None)
    if trace is not None:
        trace.write_text("\n".join(lines.lines or []) + "\n")
    result = {"seed": seed, "violations": outcome.violations, "plan": str(outcome.plan)}
    console.print(f"{outcome.plan}: {outcome.virtual_s:.0f} virtual s, {outcome.steps:,} steps, {outcome.facts}")
    console.print(f"trace {outcome.digest}")
    if outcome.violations:
        show(result, bug, console)
    return 1 if outcome.violations else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seed", help="live this one only, and print what is violated")
    parser.add_argument("--trace", type=Path, help="with --seed: write every step to this file")
    parser.add_argument("--check", action="store_true", help="live each seed twice and compare the traces")
    parser.add_argument("--bug", help="plant one of the bugs of bugs.py")
    parser.add_argument("--stop", action="store_true", help="stop at the first seed that fails")
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of texts have an order of their own in every process
        return subprocess.call([sys.executable, *sys.argv], env={**os.environ, "PYTHONHASHSEED": "0"})
    if arguments.seed is not None:
        return single(arguments.seed, arguments.bug, arguments.trace)
    return campaign(arguments.first, arguments.seeds, arguments.bug, arguments.check, arguments.stop)


if __name__ == "__main__":
    sys.exit(main())

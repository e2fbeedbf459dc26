"""Fuzz all targets for a while, on all cores: `make fuzz SECONDS=300`, or one of them.

    python tests/fuzz/run.py --seconds 300 [--target request] [--seed 7]
    python tests/fuzz/run.py --replay tests/fuzz/regressions/x.txt

Each process takes the targets in turn, a quarter of a second each, with inputs of its own seed. Inputs that reached an
outcome not seen before (another error message, another line) are kept in memory and damaged further. A failure is shrunk
and printed as the text of a file for tests/fuzz/regressions, its target is left out from then on, and the run ends
with status 1. An input that kills the
process (a library that aborts) or takes over two gigabytes is found too: a process notes what it tries before it does.
"""

import argparse
import logging
import multiprocessing
import os
import queue
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import structlog
from fuzz.mutate import apply, random_ops
from fuzz.target import Target
from fuzz.targets import TARGETS, Regression, read

TURN_S = 0.25
TRACE_EVERY = 16
CORPUS_MAX = 2_000
SHRINK_S = 20.0
REPORT_S = 10.0
SPAWN = multiprocessing.get_context("spawn")
MEMORY_BYTES = 2 << 30  # beyond what the process takes when it begins


@dataclass
class Corpus:
    """Inputs of one target that led to different ends."""

    target: Target
    kept: list[bytes] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    runs: int = 0

    def choose(self, rng: random.Random) -> bytes:
        seeds = self.target.inputs
        return rng.choice(self.kept if self.kept and rng.random() < 0.5 else seeds)

    def learn(self, data: bytes, lines: int) -> None:
        if lines not in self.seen and len(self.kept) < CORPUS_MAX:
            self.seen.add(lines)
            self.kept.append(data)


class Lines:
    """Which of our lines an input ran through, as one number: cheap enough for one input in some."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()

    def __enter__(self) -> "Lines":
        self._seen = set()
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    @property
    def digest(self) -> int:
        return hash(frozenset(self._seen))

    def _call(self, frame: Any, event: str, arg: Any) -> Any:
        if "/streamlake/" not in frame.f_code.co_filename and not frame.f_code.co_filename.startswith("<"):
            return None
        return self._line

    def _line(self, frame: Any, event: str, arg: Any) -> Any:
        self._seen.add((id(frame.f_code), frame.f_lineno))
        return self._line


@dataclass(frozen=True)
class Failure:
    name: str
    data: bytes
    what: str
    trace: str


@dataclass(frozen=True)
class Turn:
    name: str
    runs: int
    kept: int
    failure: Failure | None


def work(number: int, seed: int, names: list[str], until: float, notes: Path, results: "Queue[Any]") -> None:
    quiet()
    limit_memory()
    rng = random.Random(seed)
    corpora = [Corpus(TARGETS[name]) for name in names]
    rng.shuffle(corpora)
    note = os.open(notes, os.O_RDWR | os.O_CREAT)
    while corpora and time.monotonic() < until:
        for corpus in list(corpora):
            failure = turn(corpus, rng, min(until, time.monotonic() + TURN_S), note)
            results.put((number, Turn(corpus.target.name, corpus.runs, len(corpus.kept), failure)))
            corpus.runs = 0
            if failure:
                corpora.remove(corpus)  # it would fail again and again


def turn(corpus: Corpus, rng: random.Random, until: float, note: int) -> Failure | None:
    target = corpus.target
    while time.monotonic() < until:
        data = apply(corpus.choose(rng), random_ops(rng), [corpus.choose(rng)], target.dictionary)
        os.pwrite(note, b"%b\n%d\n%b" % (target.name.encode(), len(data), data), 0)
        corpus.runs += 1
        try:
            if corpus.runs % 4 == 1:
                with Lines() as lines:
                    target.run(data)
                corpus.learn(data, lines.digest)
            else:
                target.run(data, trace=corpus.runs % TRACE_EVERY == 0)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            what, trace = describe(error), traceback.format_exc()
            return Failure(target.name, shrink(target, data, what), what, trace)
    return None


def describe(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {str(error)[:150]!r}"


def shrink(target: Target, data: bytes, what: str) -> bytes:
    """A smaller input that fails at the same place, by taking pieces out."""
    place = what.rsplit(":", 2)[0]
    until, size = time.monotonic() + SHRINK_S, len(data) // 2
    while size >= 1:
        at = 0
        while at < len(data) and time.monotonic() < until:
            smaller = data[:at] + data[at + size :]
            if fails_like(target, smaller, place):
                data = smaller
            else:
                at += size
        size //= 2
    return data


def fails_like(target: Target, data: bytes, place: str) -> bool:
    try:
        target.run(data, trace="TooLarge" in place)
    except BaseException as error:
        return describe(error).startswith(place)
    return False


def quiet() -> None:
    """What is fuzzed complains of its input, in logs and warnings."""
    structlog.configure(processors=[drop])
    logging.disable()
    warnings.simplefilter("ignore")


def drop(*_: Any) -> Any:
    raise structlog.DropEvent


def limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def last_note(path: Path) -> Failure:
    """What a process that died was trying."""
    name, size, rest = path.read_bytes().split(b"\n", 2)
    return Failure(name.decode(), rest[: int(size)], "the process died", "")


def show(failure: Failure, seed: int) -> None:
    regression = Regression(failure.what, TARGETS[failure.name], failure.data)
    print(f"\n{failure.trace}\n{failure.name} failed with seed {seed}: {failure.what}\ninput: {failure.data[:200]!r}")
    print("keep it as tests/fuzz/regressions/<name>.txt and replay it with --replay:\n\n" + regression.text, flush=True)


class Run:
    """The processes, and what they tell."""

    def __init__(self, seconds: float, seed: int, names: list[str], notes: Path) -> None:
        self.failures = 0
        self._started = time.monotonic()
        self._until = self._started + seconds
        self._seed = seed
        self._names = list(names)
        self._notes = notes
        self._results: Queue[Any] = SPAWN.Queue()
        self._workers: dict[int, Any] = {}
        self._runs = dict.fromkeys(names, 0)
        self._kept = dict.fromkeys(names, 0)

    def go(self, processes: int) -> None:
        for number in range(processes):
            self._start(number)
        told = self._started
        while self._workers:
            self._hear()
            if time.monotonic() - told > REPORT_S or not self._workers:
                told = time.monotonic()
                tried, kept = sum(self._runs.values()), sum(self._kept.values())
                print(
                    f"{told - self._started:4.0f} s  {tried:>9,} inputs, {kept:,} kept, {self.failures} failed",
                    flush=True,
                )
        print("  ".join(f"{name} {count:,}" for name, count in self._runs.items()))

    def _start(self, number: int) -> None:
        args = (number, self._seed + number, self._names, self._until, self._notes / f"{number}", self._results)
        self._workers[number] = SPAWN.Process(target=work, args=args, daemon=True)
        self._workers[number].start()

    def _hear(self) -> None:
        try:
            number, turn = self._results.get(timeout=0.5)
        except queue.Empty:
            for number, process in list(self._workers.items()):
                if not process.is_alive():
                    self._ended(number, process.exitcode)
            return
        self._runs[turn.name] += turn.runs
        self._kept[turn.name] = max(self._kept[turn.name], turn.kept)
        if turn.failure:
            self._failed(number, turn.failure)

    def _ended(self, number: int, code: int) -> None:
        del self._workers[number]
        if code:
            failure = last_note(self._notes / f"{number}")
            self._failed(number, failure)
            self._names.remove(failure.name)
            self._start(number)

    def _failed(self, number: int, failure: Failure) -> None:
        self.failures += 1
        show(failure, self._seed + number)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=300)
    arguments.add_argument(
        "--seed", type=int, default=None, help="of the first process; a new one each time if left out"
    )
    arguments.add_argument("--target", action="append", choices=sorted(TARGETS), help="these only; may be repeated")
    arguments.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments.add_argument("--replay", type=Path, help="a file of tests/fuzz/regressions")
    given = arguments.parse_args()
    if given.replay:
        regression = read(given.replay)
        regression.target.run(regression.data, trace=True)
        print(f"{regression.target.name}: passes. Once: {regression.what}")
        return 0
    seed = random.randrange(1 << 30) if given.seed is None else given.seed
    print(f"{len(given.target or TARGETS)} targets, {given.seconds:g} s, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as notes:
        run = Run(given.seconds, seed, given.target or list(TARGETS), Path(notes))
        run.go(given.processes)
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())

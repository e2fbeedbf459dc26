"""What a component counts, as it is exported: components offer a list of these, and count in plain integers.

Every metric has a row in docs/guides/metrics.md; the row's meaning is the help text. Names are stable: dashboards are
built on them. This module is apart from metrics.py because components should not import OpenTelemetry.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

Sample = tuple[float, Mapping[str, str]]
"""A value and its labels."""


@dataclass(frozen=True, slots=True)
class Metric:
    """`name` is without the `_total` of counters; `read` is called at scrape time, on the scraping thread."""

    kind: Literal["counter", "gauge"]
    name: str
    help: str
    read: Callable[[], Iterable[Sample]]


class Component(Protocol):
    """Something that counts."""

    def metrics(self) -> Iterable[Metric]: ...


def counter(name: str, help: str, value: Callable[[], float]) -> Metric:
    """A value without labels that only grows."""
    return Metric("counter", name, help, lambda: [(value(), {})])


def gauge(name: str, help: str, value: Callable[[], float]) -> Metric:
    """A value without labels that goes up and down."""
    return Metric("gauge", name, help, lambda: [(value(), {})])

"""The list of planted bugs: each replaces a function or two of the product, and puts them back afterwards."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Replace = Callable[[Any, str, Any], None]

LOST = (
    "lost",
    "has two values",
    "went back",
    "out of order",
    "does not follow",
    "holds",
    "ends at",
    "part of a batch",
    "there was",
)
DAMAGED = ("found its data damaged", "cannot be read")
TWICE = ("is twice in the table",)
MISSING = ("are not in the table", "lost data")


@dataclass(frozen=True)
class Bug:
    name: str
    what: str
    found_by: tuple[str, ...]
    plant: Callable[[Replace], None]


BUGS: dict[str, Bug] = {}


def bug(*found_by: str) -> Callable[[Callable[[Replace], None]], Callable[[Replace], None]]:
    """Register a function that plants a bug; its name and docstring are the bug's."""

    def register(plant: Callable[[Replace], None]) -> Callable[[Replace], None]:
        name = plant.__name__.replace("_", "-")
        BUGS[name] = Bug(name, " ".join((plant.__doc__ or "").split()), found_by, plant)
        return plant

    return register


@contextlib.contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Inside, the product has this bug; None: it is as it is."""
    if name is not None and name not in BUGS:
        raise SystemExit(f"{name} is no planted bug: say one of {', '.join(BUGS)}")
    with contextlib.ExitStack() as undo:

        def replace(owner: Any, attribute: str, value: Any) -> None:
            undo.callback(setattr, owner, attribute, owner.__dict__[attribute])
            setattr(owner, attribute, value)

        if name is not None:
            BUGS[name].plant(replace)
        yield


def found(bug: Bug, violations: Sequence[str]) -> str | None:
    """The first line of a violation that tells of this bug; None: whatever else they say, it is not found."""
    heads = [violation.partition("\n")[0] for violation in violations]
    return next((head for head in heads if any(words in head for words in bug.found_by)), None)

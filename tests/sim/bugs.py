"""Known bugs, planted into the product on demand: a simulation that does not find them proves nothing.

Each is one wrong decision of a kind that real systems have shipped, put in by replacing one function.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

BUGS: dict[str, Callable[[], AbstractContextManager[None]]] = {}


@contextlib.contextmanager
def planted(name: str | None) -> Iterator[None]:
    if name is None:
        yield
        return
    if name not in BUGS:
        raise SystemExit(f"{name} is no planted bug: say one of {', '.join(BUGS)}")
    with BUGS[name]():
        yield

"""Python source in the making: how encoder.py and decoder.py write one function per message class and version.

A loop over field descriptions costs several times what the straight code costs that the loop stands for. So that code
is written out, once per class and version, and compiled, as dataclasses and msgspec do.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Source:
    """Lines of one function, and the objects that they name."""

    def __init__(self, **names: Any) -> None:
        self._lines: list[str] = []
        self._indent = ""
        self._names = names

    def line(self, text: str) -> None:
        self._lines.append(self._indent + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.line(head)
        outer, self._indent = self._indent, self._indent + "    "
        yield
        self._indent = outer

    def constant(self, value: Any) -> str:
        """A name for `value` in the source."""
        name = f"c{len(self._names)}"
        self._names[name] = value
        return name

    def function(self, name: str, title: str) -> Callable[..., Any]:
        """The function `name` of the source; `title` stands for the file in tracebacks."""
        exec(compile("\n".join(self._lines), f"<{title}>", "exec"), self._names)
        found: Callable[..., Any] = self._names[name]
        return found

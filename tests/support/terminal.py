"""A program on a terminal as a person has it: keys go in, and a screen can be looked at."""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import pexpect
import pyte
from support.server import heed_interrupts
from support.wait import DEADLINE_S, wait_until

UP, TAB, ENTER, CTRL_C, CTRL_D = "\x1b[A", "\t", "\r", "\x03", "\x04"


class _Screen(pyte.Screen):
    def __init__(self, columns: int, lines: int, answer: Callable[[str], object]) -> None:
        super().__init__(columns, lines)
        self._answer = answer

    def write_process_input(self, data: str) -> None:
        self._answer(data)


class Terminal:
    def __init__(self, command: Sequence[str], environ: Mapping[str, str], columns: int = 120, lines: int = 40) -> None:
        self._child = pexpect.spawn(
            command[0],
            list(command[1:]),
            env={**environ, "TERM": "xterm"},
            encoding="utf-8",
            dimensions=(lines, columns),
            timeout=DEADLINE_S,
            preexec_fn=heed_interrupts,
        )
        self._screen = _Screen(columns, lines, self._child.send)
        self._stream = pyte.Stream(self._screen)

    def press(self, keys: str) -> None:
        self._child.send(keys)

    @property
    def screen(self) -> str:
        """As it is now, without blanks at the ends."""
        try:
            while True:
                self._stream.feed(self._child.read_nonblocking(1 << 16, timeout=0))
        except (pexpect.TIMEOUT, pexpect.EOF):
            pass
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    def wait_for(self, *texts: str) -> str:
        """Until they are all on the screen."""

        def there() -> str:
            screen = self.screen
            return screen if all(text in screen for text in texts) else ""

        return wait_until(there, lambda: f"{texts} never came:\n{self.screen}")

    def end(self) -> int | None:
        """What the program exits with, once it does."""
        self._child.expect(pexpect.EOF)
        self._child.close()
        return self._child.exitstatus

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.close(force=True)

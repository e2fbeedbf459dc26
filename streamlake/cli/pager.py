"""Long results on a terminal go through the user's pager, as git's do."""

import io
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamlake.cli.console import WIDE, note, out

PAGER = "less"
LESS = "FRSX"  # ends if all fits, shows colours, does not fold lines, leaves the text on the screen


def page(table: Table) -> bool:
    """Show a table that is larger than the terminal; False if it fits, or nobody wants or has a pager."""
    command = shlex.split(os.environ.get("PAGER", PAGER))
    if not command or command == ["cat"]:
        return False
    text = _unfolded(table)
    lines = Text.from_ansi(text).split("\n")
    if len(lines) < out.size.height and max(line.cell_len for line in lines) <= out.size.width:
        return False
    environ = {"LESS": LESS, **os.environ}
    with _interrupts_are_the_pagers():
        try:
            pager = subprocess.Popen(command, stdin=subprocess.PIPE, env=environ, text=True, errors="backslashreplace")
        except OSError as error:
            out.print(table)
            note((f"no pager {command[0]}: {error.strerror} (PAGER names another; PAGER=cat is none)", "dim"))
            return True
        try:
            pager.communicate(text)
        except BrokenPipeError:  # somebody has seen enough
            pass
        pager.wait()
    return True


def _unfolded(table: Table) -> str:
    """As the terminal would show it if it were wide enough."""
    file = io.StringIO()
    wide = Console(file=file, width=WIDE, force_terminal=True, no_color=out.no_color, highlight=False, markup=False)
    wide._color_system = out._color_system
    wide.print(table)
    return file.getvalue()


@contextmanager
def _interrupts_are_the_pagers() -> Iterator[None]:
    """Ctrl-C reaches all programs of a terminal: the pager knows what to do with it, and is waited for. From before it
    starts, as it may be pressed at once; by a handler, because the pager would inherit that it is ignored."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

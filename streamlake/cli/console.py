"""Printing for people. What is printed is data: never markup, never control characters that a terminal would obey.

stdout is for data, stderr for everything else. A pipe gets whole lines, however long; a terminal's are folded.
"""

import json
import sys
import unicodedata
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamlake.core.errors import Invalid, StreamLakeError, Unavailable

WIDE = 1_000_000  # columns: nothing is folded in a pipe


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise


out = _Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else WIDE)
err = _Console(stderr=True, highlight=False, markup=False, emoji=False)


class Exit(IntEnum):
    """What a command's end means to the script that called it; docs/guides/commands.md."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3
    DIFFERENCE = 4  # a check was made, and found one
    INTERRUPTED = 130


class Usage(Invalid):
    """The command line cannot be meant like that."""


class Difference(StreamLakeError):
    """A check was made, and what should be equal is not."""


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


AsOutput = Annotated[Output, typer.Option("--output", "-o", help="A table for people, or JSON for programs.")]


def group(help: str = "") -> typer.Typer:
    """A command group as all of ours are: plain help, in which [default: …] and other brackets stay."""
    return typer.Typer(
        help=help or None,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def exit_code(error: StreamLakeError) -> Exit:
    match error:
        case Usage():
            return Exit.USAGE
        case Unavailable():
            return Exit.UNREACHABLE
        case Difference():
            return Exit.DIFFERENCE
    return Exit.REFUSED


def fail(error: StreamLakeError) -> NoReturn:
    """One line on stderr, and the end."""
    complain(str(error))
    sys.exit(exit_code(error))


def complain(message: str) -> None:
    note(("error: ", "bold red"), message)


def note(*parts: str | tuple[str, str]) -> None:
    """A line on stderr; parts are texts, or texts with a style."""
    err.print(_line(parts), soft_wrap=True)


def say(*parts: str | tuple[str, str]) -> None:
    """A line on stdout. One line stays one line, so that it can be copied."""
    out.print(_line(parts), soft_wrap=True)


def _line(parts: tuple[str | tuple[str, str], ...]) -> Text:
    return Text.assemble(*(visible(p) if isinstance(p, str) else (visible(p[0]), p[1]) for p in parts))


def show(title: str, columns: list[str], rows: list[list[Any]], numbers: tuple[str, ...] = ()) -> None:
    """A table; columns named in `numbers` are right-aligned. A cell may be a styled Text."""
    out.print(as_table(title, columns, rows, numbers))


def as_table(title: str, columns: list[str], rows: list[list[Any]], numbers: tuple[str, ...] = ()) -> Table:
    """What `show` prints."""
    table = Table(title=Text(visible(title), "bold") if title else None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        header = Text(visible(column))
        justify: Literal["right", "left"] = "right" if column in numbers else "left"
        # Folding, where nothing is folded, would still take a space from the end of text with characters of no width.
        table.add_column(header, justify=justify, header_style="dim", overflow="fold", no_wrap=out.width >= WIDE)
    for row in rows:
        table.add_row(*(value if isinstance(value, Text) else Text(visible(text(value))) for value in row))
    return table


def show_json(value: Any) -> None:
    """One JSON document, for programs."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def visible(text: str, but: str = "\n") -> str:
    r"""The text with control characters (but for `but`) and halves of surrogates as \x1b, \t, \ud800."""
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if _hidden(c) and c not in but else c for c in text)


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs")

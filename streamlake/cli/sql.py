"""`streamlake sql`: SQL on the tables of a running server. How DuckDB sees them: lake/sql.py. Prompt: sql_shell.py."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from streamlake.cli import sql_output
from streamlake.cli.addresses import DEFAULT_HTTP, Http, Token
from streamlake.cli.console import Usage, group, note
from streamlake.cli.sql_output import Format
from streamlake.core.errors import Full, Invalid
from streamlake.core.version import install_hint
from streamlake.lake.sql import Session, Wait
from streamlake.lake.statements import split

app = group()
WAIT_S = 120.0
STATEMENT_CHARS_MAX = 1 << 20


@app.command()
def sql(
    query: Annotated[str | None, typer.Argument(help="Statements, with semicolons between. Without: a prompt.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read statements from a file; - is stdin.")] = None,
    output: Annotated[
        Format, typer.Option("--output", "-o", help="A table for people; CSV or JSON, with all rows, for programs.")
    ] = Format.TEXT,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="First wait until the tables hold what is in their topics now.")
    ] = False,
    wait_s: Annotated[float, typer.Option(help="How long --wait waits at most, in seconds.", min=0)] = WAIT_S,
    write: Annotated[
        bool, typer.Option("--write", help="Let statements change tables: INSERT INTO CATALOG.NAMESPACE.NAME …")
    ] = False,
    token: Token = None,
    http: Http = DEFAULT_HTTP,
) -> None:
    """Run SQL on the tables: each is NAMESPACE.NAME, and NAME alone in `default`.

    Tables that a statement names have all rows that were acknowledged before it: their commit is waited for, two
    seconds at most.

    Write names with other characters than letters, digits and _ in double quotes: "shop.orders.v1".

    Without a query or a file, statements come from stdin; on a terminal there is a prompt, with history (.help tells
    more). The first error ends it all elsewhere.
    """
    if query is not None and file is not None:
        raise Usage("a query and --file: give one of them")
    waiting = Wait(wait_s, lambda behind: note((f"waiting for {', '.join(t['table'] for t in behind)} …", "dim")))
    session = Session(http, token, _warn, waiting if wait else None, write)
    with closing(session.connection):
        if query is not None:
            _run(session, [query], output)
        elif file is not None and str(file) != "-":
            _run(session, [_content(file)], output)
        elif file is None and sys.stdin.isatty() and sys.stdout.isatty():
            _prompt(session, output)
        else:
            _run(session, sys.stdin, output)


def _run(session: Session, pieces: Iterable[str], output: Format) -> None:
    """Statement by statement, until an error."""
    import duckdb

    for statement in _statements(pieces):
        try:
            sql_output.run(session, statement, output)
        except duckdb.Error as error:
            raise Invalid(str(error)) from None


def _prompt(session: Session, output: Format) -> None:
    try:
        from streamlake.cli.sql_shell import Shell  # imports prompt_toolkit, which only a person needs
    except ImportError as error:
        raise Invalid(f"the prompt needs {error.name}: {install_hint('sql')}") from None
    Shell(session, output).run()


def _statements(pieces: Iterable[str]) -> Iterator[str]:
    """Each as soon as it is complete: a program may write one, and read its rows, before it writes the next."""
    text = ""
    for piece in pieces:
        text += piece
        if ";" in piece:
            complete, text = split(text)
            yield from complete
        if len(text) > STATEMENT_CHARS_MAX:
            raise Full(f"a statement is longer than {STATEMENT_CHARS_MAX:,} characters: is a semicolon missing?")
    if text.strip():
        yield text


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Invalid(f"{file} is no text in UTF-8") from None


def _warn(problem: str) -> None:
    note(("warning: ", "yellow"), problem)

"""Printing for people, and the two addresses every client command takes."""

import json
import sys
import urllib.error
import urllib.request
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from streamlake.core.errors import Unavailable

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Bootstrap = Annotated[
    str, typer.Option("--bootstrap", "-b", envvar="STREAMLAKE_BOOTSTRAP", help="Kafka address of a broker, host:port.")
]
Http = Annotated[
    str, typer.Option("--http", envvar="STREAMLAKE_HTTP", help="HTTP address of a broker: registry, tables, metrics.")
]
DEFAULT_BOOTSTRAP = "127.0.0.1:9092"
DEFAULT_HTTP = "http://127.0.0.1:8081"


def fail(message: str) -> NoReturn:
    err.print(f"[bold red]error:[/] {message}", soft_wrap=True)
    sys.exit(1)


def show(title: str, columns: list[str], rows: list[list[Any]], numbers: tuple[str, ...] = ()) -> None:
    """A table; columns named in `numbers` are right-aligned."""
    table = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", header_style="dim", overflow="fold")
    for row in rows:
        table.add_row(*(text(value) for value in row))
    out.print(table)


def text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def get_json(http: str, path: str) -> Any:
    """GET from a broker's HTTP port. Unavailable says how to start one."""
    try:
        with urllib.request.urlopen(http.rstrip("/") + path, timeout=10) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise Unavailable(f"{http}{path} answered {error.code}: {error.read(500).decode(errors='replace')}") from None
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"no StreamLake server answers at {http} ({error}): start one with `streamlake server`, or give --http"
        ) from None

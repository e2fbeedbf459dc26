"""`streamlake …`: the command line. One module per command group; this one only joins them."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from streamlake.cli import bench, demo, server, sql, table, topic
from streamlake.cli.console import fail
from streamlake.core.errors import StreamLakeError

app = typer.Typer(
    name="streamlake",
    help="Kafka topics that are Apache Iceberg tables, on object storage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("server")(server.server)
app.add_typer(topic.app, name="topic")
app.add_typer(table.app, name="table")
app.command("sql")(sql.sql)
app.command("demo")(demo.demo)
app.add_typer(bench.app, name="bench")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"streamlake {version('streamlake')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Kafka topics that are Apache Iceberg tables, on object storage."""


def main() -> None:
    """Errors that we raise on purpose are one red line; anything else is a bug and keeps its traceback."""
    try:
        app()
    except StreamLakeError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

"""`streamlake …`: the command line. One module per command or group, imported when its command is given."""

import importlib
import io
import os
import sys
from typing import Annotated, Any, NoReturn, cast

import typer
from typer.core import TyperGroup

COMMANDS = {
    "server": "Run the server.",
    "cluster": "Run several brokers on this machine; show a cluster, and move what its brokers have.",
    "topic": "Create, list, describe and delete topics; produce and consume records.",
    "table": "List tables, plan them, show how far they are, look at their dead letters and redrive them.",
    "catalog": "List the configured catalogs, and check that one works.",
    "sql": "Run SQL on the tables.",
    "demo": "Five real tables through a Kafka client into Iceberg, and SQL on them.",
    "bench": "Measure a Kafka-compatible broker: produce, fetch, tables.",
}


class _Commands(TyperGroup):
    """Looks a command's module up when it is wanted: what a command does not need is not imported for it."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = cast(Any, dict.fromkeys(COMMANDS))  # from which "did you mean" picks

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        command = typer.main.get_command(importlib.import_module(f"streamlake.cli.{cmd_name}").app)
        command.name = cmd_name
        command.help = command.help or COMMANDS[cmd_name]
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of our output has seen enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Commands,
    name="streamlake",
    help="Kafka topics that are Apache Iceberg tables, on object storage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from streamlake.core.version import version

        typer.echo(f"streamlake {version()}")
        raise typer.Exit


def _print_share(wanted: bool) -> None:
    if wanted:
        from streamlake.core.share import shared_files

        typer.echo(str(shared_files()))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
    share: Annotated[
        bool,
        typer.Option(
            "--share",
            help="Print where catalogs, guides, notebooks and schemas lie.",
            is_eager=True,
            callback=_print_share,
        ),
    ] = False,
) -> None:
    """Kafka topics that are Apache Iceberg tables, on object storage."""


def main() -> NoReturn:
    """Errors that we raise on purpose are one line; anything else is a bug and keeps its traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 gets escapes, not a traceback
    try:
        app()
    except Exception as error:
        from streamlake.core.errors import StreamLakeError

        if not isinstance(error, StreamLakeError):
            raise
        from streamlake.cli.console import fail

        fail(error)
    sys.exit(0)


if __name__ == "__main__":
    main()

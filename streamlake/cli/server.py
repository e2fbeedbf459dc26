"""`streamlake server`: everything in one process, and its table worker beside it."""

from pathlib import Path
from typing import Annotated

import typer

from streamlake import config as configuration
from streamlake.cli.console import group

app = group()


@app.command()
def server(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="A TOML file; see docs/guides/configuration.md.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data live.  [default: streamlake-data]")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Kafka port; 0 picks a free one.  [default: 9092]")] = None,
    http_port: Annotated[
        int | None, typer.Option(help="Port of registry, tables, health, metrics; 0 picks one.  [default: 8081]")
    ] = None,
    advertised_host: Annotated[str | None, typer.Option(help="Host that clients are told.  [default: host]")] = None,
    advertised_port: Annotated[int | None, typer.Option(help="Port that clients are told.  [default: port]")] = None,
    until_stdin_closes: Annotated[
        bool,
        typer.Option(
            "--until-stdin-closes", help="Stop when stdin closes, too: for programs that start a server of their own."
        ),
    ] = False,
) -> None:
    """Run the server. Needs no configuration; Ctrl-C stops it cleanly, a restart has everything."""
    settings = configuration.load(
        config,
        configuration.environment(),
        {
            "server": {
                "host": host,
                "port": port,
                "http_port": http_port,
                "advertised_host": advertised_host,
                "advertised_port": advertised_port,
            },
            "storage": {"data_dir": data_dir},
        },
    )
    configuration.check(settings, configuration.environment())
    from streamlake.broker.process import (
        run,  # imports the whole server, which takes a while: mistakes are told before it
    )

    run(settings, until_stdin_closes)

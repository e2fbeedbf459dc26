"""`streamlake catalog …`: the catalogs of a server's configuration. Needs no server: it talks to the catalogs."""

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from streamlake import config as configuration
from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.named import NamedCatalogs
from streamlake.cli.console import AsOutput, Difference, Output, group, say, show, show_json
from streamlake.core.errors import Invalid
from streamlake.core.ids import Ids

app = group("List the configured catalogs, and check that one works.")
ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="The server's configuration, a TOML file.")]
DataDir = Annotated[
    Path | None, typer.Option(help="The server's data directory.  [default: as configured, or streamlake-data]")
]


@app.command("list")
def list_catalogs(config: ConfigFile = None, data_dir: DataDir = None, output: AsOutput = Output.TEXT) -> None:
    """List the catalogs that topics can choose."""
    catalogs = _catalogs(config, data_dir)
    rows = [
        {"catalog": name, "kind": found.kind, "default": name == catalogs.default, "configured": found.where}
        for name, found in sorted(catalogs.by_name.items())
    ]
    if output is Output.JSON:
        show_json(rows)
        return
    texts = [[row["catalog"], row["kind"], "yes" if row["default"] else "", row["configured"]] for row in rows]
    show("", ["catalog", "kind", "default", "configured"], texts)


@app.command("check")
def check(
    name: Annotated[str, typer.Argument(help="The catalog's name.  [default: the default catalog]")] = "",
    config: ConfigFile = None,
    data_dir: DataDir = None,
    namespace: Annotated[
        str | None, typer.Option(help="Make the table in this namespace, and no namespace, which may not be allowed.")
    ] = None,
    output: AsOutput = Output.TEXT,
) -> None:
    """Try all that StreamLake needs of a catalog on a table of its own, which is removed again."""
    catalogs = _catalogs(config, data_dir)
    name = name or catalogs.default
    _check_is_there(catalogs[name])
    failed, results = 0, []
    for step in _steps(name, catalogs[name], namespace):
        failed += step["passed"] is False
        results.append(step)
        if output is Output.TEXT:
            style, word = {True: ("green", "ok"), False: ("bold red", "FAILED"), None: ("dim", "-")}[step["passed"]]
            say((f"{word:<7}", style), f"{step['step']:<13} ", step["result"])
    if output is Output.JSON:
        show_json({"catalog": name, "kind": catalogs[name].kind, "steps": results})
    if failed:
        raise Difference(
            f"the catalog {name} does not do all that tables need: {failed} of {len(results)} steps failed"
        )


def _steps(name: str, config: CatalogConfig, namespace: str | None) -> Any:
    """As dicts. The trial removes what it made also when we are interrupted."""
    from streamlake.catalogs.secrets import hider
    from streamlake.catalogs.trial import Trial  # imports pyiceberg, which takes a while: mistakes are told before it

    hide = hider([config])
    with closing(Trial(config, f"streamlake_trial_{Ids().uuid().hex[:12]}", namespace).run()) as steps:
        for step in steps:
            yield {"step": step.name, "passed": step.passed, "result": hide(step.result)}


def _catalogs(config: Path | None, data_dir: Path | None) -> NamedCatalogs:
    environ = configuration.environment()
    loaded = configuration.load(config, environ, {"storage": {"data_dir": data_dir}})
    from streamlake.broker.catalogs import catalogs_of  # imports more than the other checks need

    return catalogs_of(loaded, environ)


def _check_is_there(config: CatalogConfig) -> None:
    """Invalid if it is a SQLite file whose directory is not there: a check would make them, and leave them."""
    uri = config.properties.get("uri", "")
    folder = Path(uri.removeprefix("sqlite:///")).parent
    if uri.startswith("sqlite:///") and not folder.is_dir():
        raise Invalid(f"{folder} does not exist: start the server once, or give its --data-dir or --config")

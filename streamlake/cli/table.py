"""`streamlake table …`: the tables that topics are, as the server reports them."""

from typing import Annotated, Any

import typer

from streamlake.cli.console import DEFAULT_HTTP, Http, fail, get_json, out, show, text

app = typer.Typer(help="List tables and show how far they are.", no_args_is_help=True)


@app.command("list")
def list_tables(http: Http = DEFAULT_HTTP) -> None:
    """List the tables with their rows, dead letters and lag."""
    tables = get_json(http, "/v1/tables")["tables"]
    if not tables:
        out.print("No table topics yet: streamlake topic create NAME --table")
        return
    rows = [[t["topic"], t["table"], t["state"], t["rows"], t["dead_letters"], t["lag"]] for t in tables]
    show("", ["topic", "table", "state", "rows", "dead letters", "lag"], rows, ("rows", "dead letters", "lag"))


@app.command("status")
def status(
    topic: Annotated[str, typer.Argument(help="The topic whose table to show.")], http: Http = DEFAULT_HTTP
) -> None:
    """Show one table in full: state, progress per partition, dead letters, where its metadata lie."""
    found: list[dict[str, Any]] = [t for t in get_json(http, "/v1/tables")["tables"] if t["topic"] == topic]
    if not found:
        fail(f"topic {topic} is no table topic: set its config streamlake.table.enable=true")
    (table,) = found
    for key in (
        "table",
        "state",
        "message",
        "maintenance",
        "rows",
        "dead_letters",
        "lag",
        "last_commit",
        "metadata_location",
    ):
        if table.get(key) not in (None, ""):
            out.print(f"[dim]{key.replace('_', ' '):<18}[/] {text(table[key])}", soft_wrap=True)
    columns = ["partition", "log start", "log end", "in table", "lag"]
    show("", columns, [[p[c.replace(" ", "_")] for c in columns] for p in table["partitions"]], tuple(columns))

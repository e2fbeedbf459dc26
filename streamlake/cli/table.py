"""`streamlake table …`: the tables that topics are, as the server reports them."""

from typing import Annotated, Any

import typer

from streamlake.cli.addresses import DEFAULT_HTTP, Http
from streamlake.cli.console import AsOutput, Output, get_json, group, say, show, show_json, text
from streamlake.core.errors import NotFound

app = group("List tables and show how far they are.")


@app.command("list")
def list_tables(http: Http = DEFAULT_HTTP, output: AsOutput = Output.TEXT) -> None:
    """List the tables with their rows, dead letters and lag, and what is wrong with them."""
    tables = get_json(http, "/v1/tables")["tables"]
    if output is Output.JSON:
        show_json(tables)
        return
    if not tables:
        say("No table topics yet: streamlake topic create NAME --table")
        return
    columns = ["topic", "table", "state", "rows", "dead letters", "lag"]
    if any(t.get("message") for t in tables):
        columns.append("message")
    show("", columns, [[t[c.replace(" ", "_")] for c in columns] for t in tables], ("rows", "dead letters", "lag"))


@app.command("status")
def status(
    topic: Annotated[str, typer.Argument(help="The topic whose table to show.")],
    http: Http = DEFAULT_HTTP,
    output: AsOutput = Output.TEXT,
) -> None:
    """Show one table in full: state, progress per partition, dead letters, where its metadata lie."""
    found: list[dict[str, Any]] = [t for t in get_json(http, "/v1/tables")["tables"] if t["topic"] == topic]
    if not found:
        raise NotFound(f"topic {topic} is no table topic: set its config streamlake.table.enable=true")
    (table,) = found
    if output is Output.JSON:
        show_json(table)
        return
    for key in (
        "catalog",
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
            say((f"{key.replace('_', ' '):<18} ", "dim"), text(table[key]))
    if table.get("dead_letter_table"):
        say((f"{'dead letter table':<18} ", "dim"), text(table["dead_letter_table"]["table"]))
    columns = ["partition", "log start", "log end", "in table", "lag"]
    show("", columns, [[p[c.replace(" ", "_")] for c in columns] for p in table["partitions"]], tuple(columns))

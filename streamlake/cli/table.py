"""`streamlake table …`: the tables that topics are, as the server reports them, and their dead letters."""

import json
import time
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from streamlake.cli.addresses import DEFAULT_HTTP, Http, Token
from streamlake.cli.console import AsOutput, Output, group, note, say, show, show_json, text
from streamlake.core.errors import Invalid, NotFound, Unavailable
from streamlake.lake.http import get_json, post_json
from streamlake.lake.sql import tables as all_tables

app = group("List tables, show how far they are, look at their dead letters and redrive them.")

ANSWER_TIMEOUT_S = 130.0  # the server waits for its table worker for less
LOOK_INTERVAL_S = 0.25
WAIT_S = 600.0

Topic = Annotated[str, typer.Argument(help="The topic of the table.")]


@app.command("list")
def list_tables(http: Http = DEFAULT_HTTP, output: AsOutput = Output.TEXT) -> None:
    """List the tables with their rows, dead letters and lag, and what is wrong with them."""
    tables = all_tables(http)
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
    table = _status(http, topic)
    if output is Output.JSON:
        show_json(table)
        return
    for key in (
        "catalog",
        "table",
        "state",
        "message",
        "waiting_for",
        "maintenance",
        "rows",
        "dead_letters",
        "lag",
        "last_commit",
        "metadata_location",
    ):
        if table.get(key) not in (None, ""):
            say((f"{key.replace('_', ' '):<18} ", "dim"), text(table[key]))
    if table.get("dead_letter_reasons"):
        by_reason = (f"{count:,} {reason}" for reason, count in table["dead_letter_reasons"].items())
        say((f"{'since its start':<18} ", "dim"), ", ".join(by_reason))
    if table.get("dead_letter_table"):
        say((f"{'dead letter table':<18} ", "dim"), text(table["dead_letter_table"]["table"]))
    if table.get("redrive"):
        say((f"{'redrive':<18} ", "dim"), _progress(table["redrive"]))
    columns = ["partition", "log start", "log end", "in table", "lag"]
    show("", columns, [[p[c.replace(" ", "_")] for c in columns] for p in table["partitions"]], tuple(columns))


@app.command("dlq")
def dead_letters(
    topic: Topic,
    examples: Annotated[int, typer.Option(min=0, max=20, help="How many to show of each reason.")] = 3,
    http: Http = DEFAULT_HTTP,
    token: Token = None,
    output: AsOutput = Output.TEXT,
) -> None:
    """Show the dead letters of a table: the records that are no rows, by reason, with examples."""
    path = f"/v1/tables/{quote(topic, safe='')}/dead-letters?{urlencode({'examples': examples})}"
    found = get_json(http, path, token, ANSWER_TIMEOUT_S)
    if output is Output.JSON:
        show_json(found)
        return
    if not found["reasons"]:
        say(f"{found['table']} is empty: every record of {topic} is a row")
        return
    for of in found["reasons"]:
        final = "" if of["redrivable"] else ", which cannot be redriven"
        say((of["reason"], "bold"), f": {of['records']:,} records{final}, from {of['first']} to {of['last']}")
        for one in of["examples"]:
            upto = f" to {one['last_offset']}" if one["last_offset"] != one["offset"] else ""
            say(f"  partition {one['partition']} offset {one['offset']}{upto}: {one['error']}")
            for name in ("key", "value"):
                say((f"    {name:<6}", "dim"), _shown(one[name]))
    say(f"all of them are in {found['table']}")
    note(f"once they can be rows (a schema registered, a config changed): streamlake table redrive {topic}")


@app.command()
def redrive(
    topic: Topic,
    reason: Annotated[str, typer.Option(help="Only dead letters of this reason; all, if not given.")] = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it is done, or at once.")] = True,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait; it goes on after.")] = WAIT_S,
    http: Http = DEFAULT_HTTP,
    token: Token = None,
    output: AsOutput = Output.TEXT,
) -> None:
    """Translate dead letters again, and move those that are rows now into the table, each once and only once.

    What it has begun is finished, whoever is stopped or killed meanwhile."""
    path = f"/v1/tables/{quote(topic, safe='')}/redrive?{urlencode({'reason': reason})}"
    done = post_json(http, path, token, ANSWER_TIMEOUT_S)["redrive"]
    until = time.perf_counter() + timeout_s
    while wait and done["state"] == "running":
        if time.perf_counter() > until:
            raise Unavailable(f"not done within {timeout_s:g} s, and going on: streamlake table status {topic}")
        time.sleep(LOOK_INTERVAL_S)  # noqa: TID251 - a program waits here, not an event loop
        # No report of it: the worker was started anew, and has not come to it yet.
        done = _status(http, topic).get("redrive") or done
    if output is Output.JSON:
        show_json(done)
    else:
        say(_progress(done))
    if done["state"] == "failed":
        raise Invalid(f"the redrive ended: {done['message']}")


def _status(http: str, topic: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [t for t in all_tables(http) if t["topic"] == topic]
    if not found:
        raise NotFound(f"topic {topic} is no table topic: set its config streamlake.table.enable=true")
    return found[0]


def _progress(redrive: dict[str, Any]) -> str:
    words = [f"{redrive['state']}: {redrive['redriven'] + redrive['found']:,} dead letters are rows now"]
    if redrive["still_dead"]:
        words.append(f"{redrive['still_dead']:,} stay dead letters")
    if redrive["state"] == "running":
        words.append(f"{redrive['files_left']:,} files to go")
    return ", ".join(words)


def _shown(value: dict[str, Any] | None) -> str:
    """A key or value as the server tells it."""
    if value is None:
        return "null"
    if "text" in value:
        return str(value["text"])
    schema = f"schema {value['schema']} " if "schema" in value else ""
    if "decoded" in value:
        return schema + json.dumps(value["decoded"], ensure_ascii=False)
    return f"{schema}0x{value['hex']}"

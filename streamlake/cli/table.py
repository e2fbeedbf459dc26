"""`streamlake table …`: the tables that topics are, as the server reports them; what they would be; dead letters."""

import json
import time
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from streamlake.cli.addresses import DEFAULT_HTTP, Http, Token
from streamlake.cli.console import AsOutput, Difference, Output, group, note, say, show, show_json, text
from streamlake.cluster.config.table import AUTOMQ_PREFIX, PREFIX
from streamlake.core.errors import Invalid, NotFound, Unavailable
from streamlake.lake.http import get_json, post_json
from streamlake.lake.sql import tables as all_tables

app = group("List tables, plan them, show how far they are, look at their dead letters and redrive them.")

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


@app.command("plan")
def plan(
    topic: Topic,
    configs: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            help="A config that the topic does not have yet, KEY=VALUE; streamlake.table. may be left out.",
        ),
    ] = None,
    sample: Annotated[int, typer.Option(min=0, max=10_000, help="So many of the newest records are tried.")] = 1_000,
    http: Http = DEFAULT_HTTP,
    token: Token = None,
    output: AsOutput = Output.TEXT,
) -> None:
    """Show what the table of a topic would be, and what would become of its newest records. Nothing is changed.

    The exit code is 4 if there could be no such table."""
    query = urlencode([("sample", sample), *(("set", _full_key(text)) for text in configs or ())])
    found = get_json(http, f"/v1/tables/{quote(topic, safe='')}/plan?{query}", token, ANSWER_TIMEOUT_S)
    if output is Output.JSON:
        show_json(found)
    else:
        _show_plan(found)
    if found["problems"]:
        raise Difference(f"topic {topic} cannot be this table")


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
    done = asked = post_json(http, path, token, ANSWER_TIMEOUT_S)["redrive"]
    until = time.perf_counter() + timeout_s
    while wait and done["state"] == "running":
        if time.perf_counter() > until:
            raise Unavailable(f"not done within {timeout_s:g} s, and going on: streamlake table status {topic}")
        time.sleep(LOOK_INTERVAL_S)  # noqa: TID251 - a program waits here, not an event loop
        # Without a report, or with that of an earlier one, the worker has not told of this one yet.
        found = _status(http, topic).get("redrive")
        done = found if found and found["asked_ms"] >= asked["asked_ms"] else done
    if output is Output.JSON:
        show_json(done)
    else:
        say(_progress(done))
    if done["state"] == "failed":
        raise Invalid(f"the redrive ended: {done['message']}")


def _full_key(text: str) -> str:
    return text if text.startswith((PREFIX, AUTOMQ_PREFIX)) else PREFIX + text


def _show_plan(plan: dict[str, Any]) -> None:
    def line(name: str, value: str) -> None:
        say((f"{name:<10} ", "dim"), value)

    catalog = plan["catalog"]
    is_new = {True: "exists", False: "new"}.get(plan.get("exists"), "not looked at")  # type: ignore[arg-type]
    line("table", f"{plan['table']} ({is_new}), catalog {catalog['name']} (kind {catalog['kind']})")
    if "ddl" in plan:
        say(plan["ddl"])
    for column in plan.get("columns", ()):
        if column["change"]:
            line("column", f"{column['name']} {column['type']}: {column['change']}")
    if was := plan.get("partition_was"):
        line("partition", f"was {was}; files that are there keep theirs, the next commit of rows changes it")
    if sample := plan.get("sample"):
        dead = ", ".join(f"{count:,} {reason}" for reason, count in sample["dead_letters"].items())
        left = f", {sample['tombstones']:,} tombstones left out" if sample["tombstones"] else ""
        line(
            "sample",
            f"{sample['records']:,} of {sample['of']:,} records: {sample['rows']:,} rows{left}"
            + (dead and f", {dead}"),
        )
        for example in sample["examples"].values():
            line("", example)
    for name, key in (("loses", "losses"), ("warning", "warnings"), ("problem", "problems")):
        for text_ in plan.get(key, ()):
            line(name, text_)
    if cost := plan.get("cost"):
        words = [
            f"at most {cost['commits_per_hour_max']:,} commits an hour, of {cost['requests_per_commit']} requests each"
        ]
        if "bytes_per_row" in cost:
            words.append(f"{cost['bytes_per_row']:,} bytes a row in Parquet")
        if "bytes_per_hour" in cost:
            words.append(f"{cost['bytes_per_hour'] / 1e6:,.1f} MB an hour at {cost['rows_per_second']:,} rows a second")
        line("cost", "; ".join(words))
    line("verdict", plan["verdict"])


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

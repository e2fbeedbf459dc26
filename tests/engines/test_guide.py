"""The lines of docs/guides/engines.md do what the page says: those of engines that start in seconds."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from engines.page import PAGE
from engines.topics import Batch, Topic, columns, produce
from support.lake import load_table
from support.server import Server

from streamlake.lake import sql

ORDERS = Topic("orders", [Batch(*columns(("word", "string", list("abcdef"))))])


@pytest.fixture
def server(new_server: Callable[..., Server]) -> Server:
    started = new_server().start()
    produce(started, ORDERS)
    return started


def code(heading: str, language: str, server: Server) -> list[str]:
    section = PAGE.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert blocks, f"{PAGE} has no {language} under {heading}"
    return [block.replace("http://127.0.0.1:8081", server.http) for block in blocks]


def test_duckdb(server: Server) -> None:
    snapshot = load_table(server, "orders").metadata.current_snapshot_id
    (block,) = code("DuckDB", "sql", server)
    lake = sql.connect()
    for statement in filter(None, (line.partition("--")[0].strip() for line in block.splitlines())):
        lake.execute(re.sub(r"VERSION => \d+", f"VERSION => {snapshot}", statement))
    assert lake.execute("SELECT n FROM lake.mine.copy ORDER BY n").fetchall() == [(0,), (2,), (3,), (4,), (5,)]
    lake.close()


def test_pyiceberg_and_polars(server: Server) -> None:
    names: dict[str, Any] = {}
    (pyiceberg,) = code("PyIceberg", "python", server)
    exec(pyiceberg, names)
    polars, _ = code("Polars and Daft", "python", server)
    *lines, last = polars.strip().splitlines()
    exec("\n".join(lines), names)
    assert sorted(eval(last, names)["n"].to_list()) == [4, 5]

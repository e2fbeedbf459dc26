"""A server with several catalogs: each topic in the one that it names, and one that is away holds up nobody else."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from confluent_kafka import KafkaException
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog
from support import lake
from support.server import Server
from support.wait import DEADLINE_S, wait_until

from streamlake.lake import sql
from streamlake.lake.endpoint import Endpoint
from streamlake.lake.names import Name
from streamlake.worker.catalog_calls import CALLS_MAX

CONFIG = """
[catalogs.archive]
kind = "sql"
properties.uri = "sqlite:///{folder}/archive.db"
properties.warehouse = "file://{folder}/archive"
[catalogs.away]
kind = "rest"
properties.uri = "http://127.0.0.1:9"
properties.token = "${{AWAY_TOKEN}}"
"""


def attached(server: Server, warehouse: str, topic: str) -> Any:
    """The rows of a topic's table, through a catalog that DuckDB attaches by its name."""
    duck = sql.connect()
    how = f"TYPE iceberg, ENDPOINT '{server.http}/iceberg', AUTHORIZATION_TYPE 'none'"
    duck.execute(f"ATTACH '{warehouse}' AS attached ({how})")
    (found,) = duck.execute(f"SELECT count(*) FROM attached.default.{topic}").fetchall()
    duck.execute("CREATE SCHEMA attached.mine; CREATE TABLE attached.mine.t AS SELECT 1 AS x")
    duck.close()
    return found[0]


@pytest.mark.slow
def test_tables_in_several_catalogs(new_server: Callable[..., Server], tmp_path: Path) -> None:
    server = new_server(CONFIG.format(folder=tmp_path), environ={"AWAY_TOKEN": "s3cr3t-token"}).start()
    for topic, catalog in (("plain", ""), ("old", "archive"), ("stuck", "away")):
        lake.create_topic(server, topic, convert_value_type="string", catalog=catalog)
        lake.produce(server, topic, [b"a", b"b", b"c"])
    for topic in ("plain", "old"):
        server.wait_for_table(topic, 3)
    message = lake.wait_for_state(server, "stuck", "retrying")
    assert "the catalog away cannot be opened: ConnectionError" in message
    assert "check uri in [catalogs.away]" in message
    tables = server.tables()
    assert {topic: table["catalog"] for topic, table in tables.items()} == {
        "plain": "sql", "old": "archive", "stuck": "away",
    }  # fmt: skip
    assert tables["stuck"]["lag"] == 3
    assert server.get("/healthz")["status"] == "ok"
    archive = SqlCatalog("archive", uri=f"sqlite:///{tmp_path}/archive.db", warehouse=f"file://{tmp_path}/archive")
    assert sorted(archive.load_table("default.old").scan().to_arrow()["value"].to_pylist()) == ["a", "b", "c"]
    assert lake.query(server, "SELECT count(*) FROM old") == [(3,)]
    assert {name: attached(server, name, topic) for name, topic in (("streamlake", "plain"), ("archive", "old"))} == {
        "streamlake": 3, "archive": 3,
    }  # fmt: skip
    rest = RestCatalog("default", uri=f"{server.http}/iceberg")
    rest.create_table("default.old", pa.schema([("x", pa.int64())]))  # its namesake in the default catalog
    newest = Endpoint(server.http, None, pytest.fail).newest("archive", Name("default", "old"))
    assert str(newest).startswith(f"file://{tmp_path}/archive/")
    rest.drop_table("default.old")
    away = httpx.get(f"{server.http}/iceberg/v1/away/namespaces", trust_env=False, timeout=DEADLINE_S)
    assert (away.status_code, away.json()["error"]["type"]) == (503, "ServiceUnavailableException")

    with pytest.raises(KafkaException, match="has rows in the catalog archive"):
        lake.set_config(server, "old", streamlake_table_catalog="sql")
    lake.set_config(server, "stuck", streamlake_table_catalog="archive")  # it has none
    server.wait_for_table("stuck", 3)
    lake.set_config(server, "old", streamlake_table_enable="false")
    lake.set_config(server, "old", streamlake_table_enable="true", streamlake_table_catalog="sql")
    server.wait_for_table("old", 3)
    assert server.tables()["old"]["catalog"] == "sql"
    assert len(lake.load_table(server, "old").scan().to_arrow()) == 3
    assert server.stop() == 0
    assert "s3cr3t" not in server.log + json.dumps(tables)


class Hanging(BaseHTTPRequestHandler):
    """A REST catalog that can be opened, and answers nothing else until it is let."""

    let = threading.Event()
    asked = threading.Semaphore(0)

    def do_GET(self) -> None:
        if not self.path.startswith("/v1/config"):
            self.asked.release()
            self.let.wait(DEADLINE_S)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"defaults": {}, "overrides": {}, "namespaces": []}')

    def log_message(self, *_: Any) -> None:
        pass


def test_a_catalog_that_hangs_holds_up_no_other(new_server: Callable[..., Server]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hanging) as hanging, ThreadPoolExecutor(40) as threads:
        threads.submit(hanging.serve_forever)
        uri = f"http://127.0.0.1:{hanging.server_port}"
        server = new_server(f'[catalogs.hanging]\nkind = "rest"\nproperties.uri = "{uri}"\n').start()

        def status(path: str, timeout_s: float = DEADLINE_S) -> int:
            return httpx.get(f"{server.http}/iceberg/v1/{path}", trust_env=False, timeout=timeout_s).status_code

        def is_refused() -> bool:
            try:
                return status("hanging/namespaces", timeout_s=1) == 503
            except httpx.TimeoutException:
                return False  # it came before one of `hung`, and hangs in its place

        assert status("namespaces") == 200
        hung = [threads.submit(status, "hanging/namespaces") for _ in range(CALLS_MAX)]
        assert Hanging.asked.acquire(timeout=DEADLINE_S)
        wait_until(is_refused)  # those before it are all with the worker
        assert status("namespaces") == 200
        Hanging.let.set()
        assert {one.result(DEADLINE_S) for one in hung} <= {200, 503}
        wait_until(lambda: status("hanging/namespaces") == 200)
        hanging.shutdown()
        assert server.stop() == 0


@pytest.mark.slow
def test_what_no_catalog_can_have_is_refused_by_the_broker(new_server: Callable[..., Server], tmp_path: Path) -> None:
    hive = '[catalogs.hive]\nkind = "hive"\nproperties.uri = "thrift://127.0.0.1:9"\n'
    server = new_server(hive).start()
    lake.create_topic(server, "orders", catalog="hive")
    for topic, says in (("Orders", "topic orders feeds table default.orders already"), ("or-ders", "such as or_ders")):
        with pytest.raises(KafkaException, match=says):
            lake.create_topic(server, topic, catalog="hive")
    message = lake.wait_for_state(server, "orders", "retrying")
    assert "TTransportException" in message
    assert server.stop() == 0

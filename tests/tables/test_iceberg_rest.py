"""The Iceberg REST catalog of a whole server: rows of topics at once, beside clients who write."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pyarrow as pa
import pytest
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import ForbiddenError, OAuthError, ServerError, ServiceUnavailableError
from support import rest_lake
from support.lake import create_topic, produce, set_config
from support.seaweedfs import SeaweedFS
from support.server import Server
from support.wait import DEADLINE_S, wait_until

from streamlake.lake import sql

TOKEN = "t0ken-of-sixteen-letters"
BUCKET = """
[tables]
catalog = "lake"
[catalogs.lake]
kind = "sql"
[catalogs.lake.properties]
uri = "sqlite:///{folder}/lake.db"
warehouse = "s3://{warehouse}"
s3.endpoint = "{weed.s3_endpoint}"
s3.region = "{weed.region}"
s3.access-key-id = "${{LAKE_KEY}}"
s3.secret-access-key = "${{LAKE_SECRET}}"
[http]
vend_credentials = "short-lived"
sts_role = "{weed.role}"
sts_endpoint = "{weed.s3_endpoint}"
sign_requests = true
"""
LATE = "600000"  # ms: no commit comes by itself while a test runs


def client(server: Server, **properties: str) -> RestCatalog:
    return RestCatalog("rest", uri=f"{server.http}/iceberg", **properties)


def attach(
    server: Server, how: str = "AUTHORIZATION_TYPE 'none'", before: str = "", warehouse: str = "streamlake"
) -> "duckdb.DuckDBPyConnection":
    lake = sql.connect()
    lake.execute(f"{before}ATTACH '{warehouse}' AS lake (TYPE iceberg, ENDPOINT '{server.http}/iceberg', {how})")
    return lake


def s3_secret(seaweedfs: SeaweedFS) -> str:
    host = seaweedfs.s3_endpoint.removeprefix("http://")
    return (
        f"CREATE SECRET s (TYPE s3, KEY_ID '{seaweedfs.access_key}', SECRET '{seaweedfs.secret_key}', "
        f"ENDPOINT '{host}', URL_STYLE 'path', USE_SSL false, REGION '{seaweedfs.region}'); "
    )


def count(lake: "duckdb.DuckDBPyConnection", topic: str) -> Any:
    return lake.execute(f'SELECT count(*) FROM lake.default."{topic}"').fetchall()[0][0]


def test_duckdb_sees_acknowledged_rows_at_once(server: Server, topic: Callable[[], str]) -> None:
    name = create_topic(server, topic(), convert_value_type="string", commit_interval_ms=LATE)
    produce(server, name, [b"first"])
    server.wait_for_table(name, 1)
    lake = attach(server)
    assert count(lake, name) == 1
    for n in range(2, 5):
        produce(server, name, [b"%d" % n])
        wait_until(lambda: count(lake, name) == n)  # noqa: B023 - at once, unless a commit takes longer than loads wait
    commits = server.tables()[name]["commits"]
    assert count(lake, name) == 4 and server.tables()[name]["commits"] == commits, "nothing was new"
    lake.close()


def test_clients_maintain_a_table_beside_its_topic(server: Server, topic: Callable[[], str]) -> None:
    name = create_topic(server, topic(), convert_value_type="string", commit_interval_ms="200")
    produce(server, name, [b"%d" % n for n in range(10)])
    server.wait_for_table(name, 10)
    table = client(server).load_table(f"default.{name}")
    table.delete("value = '3'")
    with table.transaction() as transaction:
        transaction.set_properties({"write.parquet.row-group-limit": "1000"})
    tag = table.refresh().metadata.refs["streamlake"].snapshot_id
    old = [
        s.snapshot_id
        for s in table.metadata.snapshots
        if s.snapshot_id not in (tag, table.metadata.current_snapshot_id)
    ]
    table.maintenance.expire_snapshots().by_ids(old).commit()
    produce(server, name, [b"after"])
    server.wait_for_table(name, 11)
    found = sorted(client(server).load_table(f"default.{name}").scan().to_arrow()["value"].to_pylist())
    assert found == sorted([*(str(n) for n in range(10) if n != 3), "after"])


def test_what_would_break_exactly_once_waits_for_the_topic(server: Server, topic: Callable[[], str]) -> None:
    name = create_topic(server, topic(), convert_value_type="string")
    produce(server, name, [b"a"])
    server.wait_for_table(name, 1)
    rest, table = client(server), f"default.{name}"
    with pytest.raises(ForbiddenError, match=f"fed by topic {name}.*enable=false"):
        rest.drop_table(table)
    with pytest.raises(ForbiddenError, match="streamlake"):
        rest.load_table(table).manage_snapshots().remove_tag("streamlake").commit()
    set_config(server, name, streamlake_table_enable="false")
    wait_until(lambda: name not in server.tables())

    def dropped() -> bool:
        try:
            rest.drop_table(table)
        except ForbiddenError:  # the worker has not heard of it yet
            return False
        return True

    wait_until(dropped)
    assert not rest.table_exists(table)


def test_tables_without_a_topic_need_no_other_server(new_server: Callable[..., Server]) -> None:
    """Without table topics no worker runs; the first request starts it. One that is killed is started again."""
    server = new_server().start()
    assert server.worker_pid() is None
    rest = client(server)
    rest.create_namespace("mine")
    rest.create_table("mine.t", pa.schema([("x", pa.int64())])).append(pa.table({"x": [1, 2]}))
    lake = attach(server)
    assert lake.execute("SELECT sum(x) FROM lake.mine.t").fetchall() == [(3,)]
    lake.close()
    os.kill(server.wait_for_worker(), signal.SIGKILL)

    def answered() -> bool:
        try:
            return rest.load_table("mine.t").scan().to_arrow().num_rows == 2
        except (ServiceUnavailableError, ServerError):  # the request reached the worker that was about to die
            return False

    wait_until(answered)
    assert server.stop() == 0


def test_over_a_rest_catalog_and_a_bucket_with_a_key_of_the_clients_own(
    new_server: Callable[..., Server], seaweedfs: SeaweedFS, tmp_path: Path
) -> None:
    server = new_server(rest_lake.server_config(seaweedfs, tmp_path), environ=rest_lake.environ(seaweedfs)).start()
    name = create_topic(server, f"t{uuid.uuid4().hex}", convert_value_type="string", commit_interval_ms=LATE)
    produce(server, name, [b"first"])
    server.wait_for_table(name, 1)
    produce(server, name, [b"second"])
    key = {name: value for name, value in rest_lake.properties(seaweedfs).items() if name.startswith("s3.")}
    rest = client(server, **key)

    def values() -> list[str]:
        return sorted(rest.load_table(f"default.{name}").scan().to_arrow()["value"].to_pylist())

    wait_until(lambda: values() == ["first", "second"])
    with pytest.raises(ForbiddenError, match="fed by topic"):
        client(server).drop_table(f"default.{name}")
    how = "AUTHORIZATION_TYPE 'none', ACCESS_DELEGATION_MODE 'none'"
    lake = attach(server, how, s3_secret(seaweedfs), warehouse="lake")
    assert count(lake, name) == 2
    produce(server, name, [b"third"])
    wait_until(lambda: count(lake, name) == 3)
    lake.execute("CREATE SCHEMA IF NOT EXISTS lake.mine")
    lake.execute(f"CREATE TABLE lake.mine.{name} (x INTEGER)")
    lake.execute(f"INSERT INTO lake.mine.{name} VALUES (7)")
    assert lake.execute(f"SELECT x FROM lake.mine.{name}").fetchall() == [(7,)]
    lake.close()
    assert seaweedfs.secret_key not in server.log
    assert server.stop() == 0


def test_vended_credentials(new_server: Callable[..., Server], seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    """Clients need the address of the server, and nothing else."""
    config = rest_lake.server_config(seaweedfs, tmp_path) + '[http]\nvend_credentials = "long-lived"\n'
    server = new_server(config, environ=rest_lake.environ(seaweedfs)).start()
    name = create_topic(server, f"t{uuid.uuid4().hex}", convert_value_type="string", commit_interval_ms=LATE)
    produce(server, name, [b"first"])
    server.wait_for_table(name, 1)
    assert client(server).load_table(f"default.{name}").scan().to_arrow()["value"].to_pylist() == ["first"]
    lake = attach(server, warehouse="lake")
    assert count(lake, name) == 1
    lake.close()
    assert seaweedfs.secret_key not in server.log
    assert server.stop() == 0


def test_short_lived_keys_and_signatures(new_server: Callable[..., Server], tmp_path: Path) -> None:
    """Clients need the address of the server, and get no key of the server's."""
    with SeaweedFS(tmp_path, with_role=True) as weed:
        config = BUCKET.format(weed=weed, folder=tmp_path, warehouse=weed.folder())
        server = new_server(config, environ=rest_lake.environ(weed)).start()
        name = create_topic(server, "orders", convert_value_type="string", commit_interval_ms=LATE)
        produce(server, name, [b"first"])
        server.wait_for_table(name, 1)
        lake = attach(server, warehouse="lake")
        assert count(lake, name) == 1
        lake.execute("CREATE SCHEMA lake.mine; CREATE TABLE lake.mine.t AS SELECT 5 AS x")
        assert lake.execute("SELECT x FROM lake.mine.t").fetchall() == [(5,)]
        lake.close()
        table = client(server, warehouse="lake").load_table("default.orders")
        assert table.scan().to_arrow()["value"].to_pylist() == ["first"]
        assert weed.secret_key not in str(table.io.properties)
        asking = {"X-Iceberg-Access-Delegation": "remote-signing"}
        url = f"{server.http}/iceberg/v1/lake/namespaces/default/tables/orders"
        told = httpx.get(url, headers=asking, trust_env=False).json()["config"]
        file = told["s3.endpoint"] + table.metadata_location.removeprefix("s3:/")
        asked = {"region": weed.region, "uri": file, "method": "GET", "headers": {}}
        signed = httpx.post(f"{server.http}/iceberg/{told['s3.signer.endpoint']}", json=asked, trust_env=False).json()
        headers = {name: value for name, (value,) in signed["headers"].items()}
        assert httpx.get(file, headers=headers, trust_env=False).json()["table-uuid"] == str(table.metadata.table_uuid)
        assert weed.secret_key not in server.log
        assert server.stop() == 0


def test_tokens(new_server: Callable[..., Server]) -> None:
    server = new_server(f'[server]\nhttp_host = "0.0.0.0"\n[http]\ntokens = ["{TOKEN}"]\n').start()
    refused = httpx.get(f"{server.http}/iceberg/v1/config", trust_env=False)
    assert refused.status_code == 401
    client(server, token=TOKEN).create_namespace("mine")
    lake = sql.connect()
    lake.execute(f"CREATE SECRET s (TYPE iceberg, TOKEN '{TOKEN}')")
    lake.execute(f"ATTACH 'streamlake' AS lake (TYPE iceberg, ENDPOINT '{server.http}/iceberg', SECRET s)")
    lake.execute("CREATE TABLE lake.mine.t AS SELECT 5 AS x")
    assert lake.execute("SELECT x FROM lake.mine.t").fetchall() == [(5,)]
    lake.close()
    assert TOKEN not in server.log
    assert server.stop() == 0


def test_tokens_by_oauth2(new_server: Callable[..., Server]) -> None:
    """For clients that know a client's id and secret only."""
    server = new_server(f'[http]\ntokens = ["{TOKEN}"]\n').start()
    there = {"oauth2-server-uri": f"{server.http}/iceberg/v1/oauth/tokens"}
    with pytest.raises(OAuthError, match=r"must be one of \[http\] tokens"):
        client(server, credential="me:wrong-secret", **there)
    auth: Any = {"type": "oauth2", "oauth2": {"client_id": "me", "client_secret": TOKEN}}
    auth["oauth2"]["token_url"] = there["oauth2-server-uri"]
    client(server, credential=f"me:{TOKEN}", **there).create_namespace("mine")
    assert client(server, auth=auth).list_namespaces() == [("mine",)]
    secret = f"CREATE SECRET s (TYPE iceberg, CLIENT_ID 'me', CLIENT_SECRET '{TOKEN}', "
    secret += f"OAUTH2_SERVER_URI '{server.http}/iceberg/v1/oauth/tokens'); "
    lake = attach(server, "SECRET s", secret)
    lake.execute("CREATE TABLE lake.mine.t AS SELECT 5 AS x")
    assert lake.execute("SELECT x FROM lake.mine.t").fetchall() == [(5,)]
    lake.close()
    assert TOKEN not in server.log
    assert server.stop() == 0


def test_other_addresses_need_tokens(new_server: Callable[..., Server]) -> None:
    server = new_server('[server]\nhttp_host = "0.0.0.0"\n').start()
    refused = httpx.get(f"{server.http}/iceberg/v1/config", trust_env=False)
    assert (refused.status_code, refused.json()["error"]["type"]) == (403, "ForbiddenException")
    assert "set tokens in [http]" in refused.json()["error"]["message"] and "set tokens in [http]" in server.log
    assert httpx.get(f"{server.http}/healthz", trust_env=False).status_code == 200, "the rest is served"
    assert server.stop() == 0


def test_streamlake_sql_sends_a_token(new_server: Callable[..., Server]) -> None:
    server = new_server(f'[http]\ntokens = ["{TOKEN}"]\n').start()
    name = create_topic(server, "fresh", convert_value_type="string", commit_interval_ms=LATE)
    produce(server, name, [b"first"])
    server.wait_for_table(name, 1)
    produce(server, name, [b"second"])
    command = [
        sys.executable,
        "-m",
        "streamlake.cli.main",
        "sql",
        "--http",
        server.http,
        "SELECT value FROM fresh ORDER BY 1",
    ]
    without = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert without.stdout.split() == ["value", "first"]
    assert "rows that are not committed yet are missing" in without.stderr and "needs a token" in without.stderr
    environ = {**os.environ, "STREAMLAKE_TOKEN": TOKEN}

    def fresh() -> bool:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, env=environ)
        assert done.stderr == ""
        return done.stdout.split() == ["value", "first", "second"]

    wait_until(fresh)
    assert server.stop() == 0


def test_a_catalog_that_is_away(new_server: Callable[..., Server], tmp_path: Path) -> None:
    catalog = tmp_path / "away.toml"
    catalog.write_text(
        'kind = "rest"\nname = "away"\n[properties]\nuri = "http://127.0.0.1:9"\ntoken = "hidden-words"\n'
    )
    server = new_server(f'[tables]\ncatalog = "{catalog}"\n').start()
    answer = httpx.get(f"{server.http}/iceberg/v1/namespaces", trust_env=False, timeout=DEADLINE_S)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (503, "ServiceUnavailableException")
    assert error["message"] == "the catalog away cannot be opened: the server's log says why"
    assert "127.0.0.1" in server.log and "hidden-words" not in server.log + answer.text
    assert server.stop() == 0


@pytest.mark.parametrize("config", ["[http]\niceberg = false\n", "[tables]\nenabled = false\n"])
def test_switched_off(new_server: Callable[..., Server], config: str) -> None:
    server = new_server(config).start()
    assert httpx.get(f"{server.http}/iceberg/v1/config", trust_env=False).status_code == 404
    assert server.stop() == 0

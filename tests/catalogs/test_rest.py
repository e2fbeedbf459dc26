import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import requests
from pyiceberg.catalog import Catalog
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField
from requests.adapters import BaseAdapter
from support.rest_endpoint import serve
from support.wait import DEADLINE_S

from streamlake.catalogs import rest
from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.files.file_io import StoreFileIO
from streamlake.catalogs.kinds import capabilities_of, load
from streamlake.catalogs.trouble import remedy
from streamlake.table.task.control import S3AccessSettings

if TYPE_CHECKING:
    from support.seaweedfs import SeaweedFS


def config(server: "SeaweedFS") -> CatalogConfig:
    return CatalogConfig(
        "rest",
        "lake",
        {
            "uri": server.iceberg_rest_uri,
            "warehouse": server.warehouse,
            "oauth2-server-uri": f"{server.iceberg_rest_uri}/v1/oauth/tokens",
            "credential": f"{server.access_key}:{server.secret_key}",
            "s3.endpoint": server.s3_endpoint,
            "s3.access-key-id": server.access_key,
            "s3.secret-access-key": server.secret_key,
            "s3.region": server.region,
        },
    )


def loaded(config: CatalogConfig) -> Catalog:
    """The server makes its table bucket a moment after it answers."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            catalog = load(config)
            catalog.list_namespaces()
            return catalog
        except Exception:
            time.sleep(0.05)
    raise RuntimeError("the table bucket did not appear")


def test_a_namespace_called_as_its_catalog(seaweedfs: "SeaweedFS") -> None:
    """pyiceberg would take it for the catalog's name, and commit to a table of the namespace below."""
    catalog = loaded(config(seaweedfs))
    if not catalog.namespace_exists("lake"):
        catalog.create_namespace("lake")
    table = catalog.create_table(("lake", "named_alike"), Schema(NestedField(1, "id", LongType())))
    table.append(pa.table({"id": [1, 2]}))
    assert catalog.load_table(("lake", "named_alike")).scan().to_arrow()["id"].to_pylist() == [1, 2]


def test_requests_signed_by_sigv4(seaweedfs: "SeaweedFS") -> None:
    signed = {
        "uri": seaweedfs.iceberg_rest_uri,
        "warehouse": seaweedfs.warehouse,
        "rest.sigv4-enabled": "true",
        "rest.signing-name": "s3tables",
        "rest.signing-region": seaweedfs.region,
        "client.access-key-id": seaweedfs.access_key,
        "client.secret-access-key": seaweedfs.secret_key,
    }
    assert loaded(CatalogConfig("rest", "lake", signed)).list_namespaces() is not None
    with pytest.raises(Exception, match=r"(?i)signature|forbidden|denied|unauthorized"):
        load(CatalogConfig("rest", "lake", {**signed, "client.secret-access-key": "wrong"})).list_namespaces()


class Recorder(ThreadingHTTPServer):
    """Answers every request with `body`, a catalog's configuration, and keeps the headers that came."""

    daemon_threads = True

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.body = b'{"defaults": {}, "overrides": {}}'
        super().__init__(("127.0.0.1", 0), Answer)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Recorder)
        self.server.seen.append(self.headers)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("given", "header", "value"),
    [
        ({"token": "t0ken"}, "Authorization", "Bearer t0ken"),
        ({"auth": {"type": "basic", "basic": {"username": "u", "password": "p"}}}, "Authorization", "Basic dTpw"),
        ({"auth": {"type": "noop"}}, "Authorization", None),
        ({"header.Polaris-Realm": "LAKE"}, "Polaris-Realm", "LAKE"),
        ({}, "X-Iceberg-Access-Delegation", "vended-credentials"),
        ({"header.X-Iceberg-Access-Delegation": ""}, "X-Iceberg-Access-Delegation", ""),
    ],
)
def test_headers_of_requests(recorder: Recorder, given: dict[str, Any], header: str, value: str | None) -> None:
    load(CatalogConfig("rest", "lake", {"uri": recorder.uri, **given}))
    assert [headers[header] for headers in recorder.seen] == [value]


def test_what_a_catalog_says_of_itself(recorder: Recorder) -> None:
    config = CatalogConfig("rest", "lake", {"uri": recorder.uri})
    plain = capabilities_of("rest", load(config))
    assert (plain.keeps_tags, plain.keeps_history, plain.multi_table_commit) == (True, True, False)
    endpoints = ["GET /v1/{prefix}/namespaces", "POST /v1/{prefix}/transactions/commit"]
    told = {"overrides": {"nessie.is-nessie-catalog": "true"}, "endpoints": endpoints}
    recorder.body = json.dumps(told).encode()
    nessie = capabilities_of("rest", load(config))
    assert (nessie.keeps_tags, nessie.keeps_history, nessie.multi_table_commit) == (False, False, True)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"overrides": 7}', b""])
def test_what_is_no_catalog(recorder: Recorder, body: bytes) -> None:
    recorder.body = body
    config = CatalogConfig("rest", "lake", {"uri": recorder.uri}, "lake.toml")
    with pytest.raises(Exception) as raised:
        load(config)
    assert remedy(config, raised.value) == "what answers is no such catalog: check uri in lake.toml"


def test_a_catalog_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "CONNECT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(rest, "READ_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        uri = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(requests.exceptions.ReadTimeout):
            load(CatalogConfig("rest", "lake", {"uri": uri}))


def test_nothing_is_sent_twice_by_an_adapter() -> None:
    session = requests.Session()
    for adapter in session.adapters.values():
        assert adapter.max_retries.total == 0
    timed = rest.TimedAdapter(requests.adapters.HTTPAdapter())
    assert timed._inner.max_retries.total == 0


def commit(*updates: dict[str, Any], assigned: int | None = None) -> dict[str, Any]:
    requirements: list[dict[str, Any]] = [{"type": "assert-table-uuid", "uuid": "u"}]
    if assigned is not None:
        requirements.append({"type": "assert-last-assigned-field-id", "last-assigned-field-id": assigned})
    return {"requirements": requirements, "updates": list(updates)}


def new_schema(*ids: int, **more: Any) -> dict[str, Any]:
    fields = [{"id": n, "name": f"c{n}", "type": "long", "required": False} for n in ids]
    return {"action": "add-schema", "schema": {"type": "struct", "schema-id": 1, "fields": fields}, **more}


@pytest.mark.parametrize(
    ("sent", "last_column_id"),
    [
        (commit(new_schema(1, 2)), 2),
        (commit({"action": "set-properties", "updates": {}}, new_schema(1, 2), assigned=1), 2),
        (commit(new_schema(1, 2), assigned=7), 7),  # columns 3 to 7 were dropped: their ids are never used again
        (commit(new_schema(1, 2, **{"last-column-id": 9})), 9),
        (commit(new_schema()), 0),
    ],
)
def test_new_schemas_say_the_last_column_id(sent: dict[str, Any], last_column_id: int) -> None:
    found = json.loads(rest.with_last_column_ids(json.dumps(sent).encode()))
    (added,) = (update for update in found["updates"] if update["action"] == "add-schema")
    assert added.pop("last-column-id") == last_column_id
    for update in sent["updates"]:
        update.pop("last-column-id", None)
    assert found == sent


class Kept(BaseAdapter):
    def __init__(self) -> None:
        super().__init__()
        self.requests: list[requests.PreparedRequest] = []

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        self.requests.append(request)
        answer = requests.Response()
        answer.status_code = 200
        return answer


def test_commits_are_sent_with_the_last_column_id() -> None:
    session, kept = requests.Session(), Kept()
    session.mount("http://", rest.TimedAdapter(kept))
    plain = b'{"updates": []}'
    for body in (json.dumps(commit(new_schema(1))).encode(), plain):
        session.post("http://catalog/t", data=body)
    with_schema, without = kept.requests
    assert json.loads(with_schema.body)["updates"][0]["last-column-id"] == 1
    assert without.body == plain
    assert [r.headers["Content-Length"] for r in kept.requests] == [str(len(r.body)) for r in kept.requests]


def test_vended_credentials_reach_the_files_of_a_table(seaweedfs: "SeaweedFS", tmp_path: Path) -> None:
    """The server has the keys of the bucket, and the client has none but those that come with a table."""
    files = {
        "s3.endpoint": seaweedfs.s3_endpoint,
        "s3.access-key-id": seaweedfs.access_key,
        "s3.secret-access-key": seaweedfs.secret_key,
        "s3.region": seaweedfs.region,
    }
    place = {"uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": f"s3://{seaweedfs.folder()}"}
    given = S3AccessSettings(vends="long-lived")
    with serve(load(CatalogConfig("sql", "streamlake", place | files)), s3=given) as endpoint:
        catalog = load(CatalogConfig("rest", "lake", {"uri": endpoint.url}))
        catalog.create_namespace("n")
        table = catalog.create_table("n.t", Schema(NestedField(1, "id", LongType())))
        assert isinstance(table.io, StoreFileIO)
        table.append(pa.table({"id": [1, 2]}))
        assert catalog.load_table("n.t").scan().to_arrow()["id"].to_pylist() == [1, 2]

"""The routes to the files of a table, and PyIceberg's client on them."""

import httpx
import pyarrow as pa
import pytest
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog
from support.rest_endpoint import serve

from streamlake.table.task.control import S3AccessSettings

TABLE = "namespaces/a/tables/t"


@pytest.fixture
def table(rest: RestCatalog) -> None:
    rest.create_namespace("a")
    rest.create_table("a.t", pa.schema([("x", pa.int64())]))


@pytest.mark.usefixtures("table")
def test_what_is_not_configured_is_not_offered(http: httpx.Client) -> None:
    for answer, key in (
        (http.get(f"{TABLE}/credentials"), "http.vend_credentials"),
        (http.post(f"{TABLE}/sign", json={}), "http.sign_requests"),
    ):
        assert answer.status_code == 406 and key in answer.json()["error"]["message"]
    offered = http.get("config").json()["endpoints"]
    assert not [line for line in offered if line.endswith(("/credentials", "/sign"))]


@pytest.mark.usefixtures("table")
def test_what_is_configured_is_offered(catalog: SqlCatalog) -> None:
    catalog.properties.update({"s3.access-key-id": "me", "s3.secret-access-key": "hidden"})
    with serve(catalog, s3=S3AccessSettings("long-lived", signs=True)) as endpoint:
        base = f"{endpoint.url}/v1"
        offered = httpx.get(f"{base}/config", trust_env=False).json()["endpoints"]
        assert "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}/credentials" in offered
        assert "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/sign" in offered
        answer = httpx.get(f"{base}/{TABLE}/credentials", trust_env=False)
        (found,) = answer.json()["storage-credentials"]
        assert found["prefix"].startswith("file://") and found["config"]["s3.secret-access-key"] == "hidden"
        assert answer.headers["cache-control"] == "no-store"
        assert httpx.get(f"{base}/namespaces/a/tables/u/credentials", trust_env=False).status_code == 404
        asked = {"region": "r", "uri": "http://x/y", "method": "GET", "headers": {}}
        for table, body, status in (
            ("t", asked, 403),
            ("u", asked, 404),
            ("t", {}, 400),
            ("t", {**asked, "region": "!"}, 400),
        ):
            sent = httpx.post(f"{base}/namespaces/a/tables/{table}/sign", json=body, trust_env=False)
            assert sent.status_code == status, sent.text

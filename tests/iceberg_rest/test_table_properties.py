"""Whoever may set properties of a table must not choose how this server reaches its files."""

import json
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog

COLUMNS = pa.schema([("x", pa.int64())])
SCHEMA = {"type": "struct", "schema-id": 0, "fields": [{"id": 1, "name": "x", "required": False, "type": "long"}]}


@pytest.fixture(params=["py-io-impl", "streamlake.disk", "s3.endpoint", "adls.account-host", "hf.endpoint"])
def properties(request: Any) -> dict[str, str]:
    return {"k": "v", request.param: "os.path"}


def refused(answer: httpx.Response, properties: dict[str, str]) -> bool:
    _, key = properties
    return answer.status_code == 400 and answer.json()["error"]["message"].startswith(f"{key}: how files are reached")


@pytest.mark.parametrize("staged", [False, True])
def test_a_table_is_not_created_with_them(
    http: httpx.Client, rest: RestCatalog, properties: dict[str, str], staged: bool
) -> None:
    rest.create_namespace("a")
    body = {"name": "t", "schema": SCHEMA, "properties": properties, "stage-create": staged}
    assert refused(http.post("namespaces/a/tables", json=body), properties)
    assert rest.list_tables("a") == []


def test_they_are_not_set(http: httpx.Client, rest: RestCatalog, properties: dict[str, str]) -> None:
    rest.create_namespace("a")
    table = rest.create_table("a.t", COLUMNS)
    change = {"requirements": [], "updates": [{"action": "set-properties", "updates": properties}]}
    assert refused(http.post("namespaces/a/tables/t", json=change), properties)
    named = {"table-changes": [{"identifier": {"namespace": ["a"], "name": "t"}, **change}]}
    assert refused(http.post("transactions/commit", json=named), properties)
    assert rest.load_table("a.t").metadata_location == table.metadata_location


def test_metadata_that_has_them_is_not_registered(
    http: httpx.Client, rest: RestCatalog, catalog: SqlCatalog, tmp_path: Path, properties: dict[str, str]
) -> None:
    rest.create_namespace("a")
    location = rest.create_table("a.t", COLUMNS).metadata_location
    metadata = json.loads(Path(location.removeprefix("file://")).read_text())
    metadata["properties"] |= properties
    foreign = tmp_path / "00000-foreign.metadata.json"
    foreign.write_text(json.dumps(metadata))
    body = {"name": "u", "metadata-location": f"file://{foreign}"}
    assert refused(http.post("namespaces/a/register", json=body), properties)
    assert not catalog.table_exists("a.u")

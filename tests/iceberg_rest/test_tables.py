"""Tables, by PyIceberg's client and by plain HTTP."""

from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from support.rest_endpoint import serve

from streamlake.table.task.control import S3AccessSettings

COLUMNS = pa.schema([("x", pa.int64()), ("y", pa.string())])
ROWS = pa.table({"x": [1, 2], "y": ["a", "b"]})
SCHEMA = {"type": "struct", "schema-id": 0, "fields": [{"id": 1, "name": "x", "required": False, "type": "long"}]}


@pytest.fixture
def table(rest: RestCatalog) -> Table:
    rest.create_namespace("a")
    table = rest.create_table("a.t", COLUMNS, properties={"k": "v"})
    table.append(ROWS)
    return table


def test_what_one_client_writes_the_catalog_has(rest: RestCatalog, catalog: SqlCatalog, table: Table) -> None:
    assert catalog.load_table("a.t").scan().to_arrow() == ROWS.cast(table.scan().to_arrow().schema)
    assert rest.list_tables("a") == [("a", "t")]
    assert rest.table_exists("a.t") and not rest.table_exists("a.u")
    assert rest.load_table("a.t").properties["k"] == "v"


def test_a_partitioned_table(rest: RestCatalog) -> None:
    rest.create_namespace("a")
    spec = PartitionSpec(PartitionField(source_id=1, field_id=1000, transform=IdentityTransform(), name="x"))
    from pyiceberg.schema import Schema
    from pyiceberg.types import LongType, NestedField

    made = rest.create_table("a.t", Schema(NestedField(1, "x", LongType(), required=False)), partition_spec=spec)
    assert [field.name for field in made.spec().fields] == ["x"]
    assert rest.load_table("a.t").spec() == made.spec()


def test_etags_spare_the_answer_until_the_table_changes(http: httpx.Client, table: Table) -> None:
    first = http.get("namespaces/a/tables/t")
    tag = first.headers["etag"]
    assert first.json()["metadata-location"] == table.metadata_location
    again = http.get("namespaces/a/tables/t", headers={"If-None-Match": f'"x", W/{tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    other = http.get("namespaces/a/tables/t", params={"snapshots": "refs"}, headers={"If-None-Match": tag})
    assert other.status_code == 200, "the same table, but not the same answer"
    table.append(ROWS)
    changed = http.get("namespaces/a/tables/t", headers={"If-None-Match": tag})
    assert changed.status_code == 200 and changed.headers["etag"] != tag


def test_snapshots_that_have_a_name(http: httpx.Client, table: Table) -> None:
    first = table.current_snapshot()
    for _ in range(2):
        table.append(ROWS)
    assert first is not None
    table.manage_snapshots().create_tag(first.snapshot_id, "first").commit()
    everything = http.get("namespaces/a/tables/t").json()["metadata"]["snapshots"]
    named = http.get("namespaces/a/tables/t", params={"snapshots": "refs"}).json()["metadata"]["snapshots"]
    assert len(everything) == 3
    assert [s["snapshot-id"] for s in named] == [first.snapshot_id, everything[2]["snapshot-id"]]
    assert http.get("namespaces/a/tables/t", params={"snapshots": "some"}).status_code == 400


def test_what_is_not_there_or_there_twice(rest: RestCatalog, table: Table) -> None:
    with pytest.raises(NoSuchTableError):
        rest.load_table("a.u")
    with pytest.raises(NoSuchTableError):
        rest.drop_table("a.u")
    with pytest.raises(TableAlreadyExistsError):
        rest.create_table("a.t", COLUMNS)
    with pytest.raises(NoSuchNamespaceError):
        rest.create_table("b.t", COLUMNS)
    with pytest.raises(TableAlreadyExistsError):
        rest.create_table_transaction("a.t", COLUMNS)


def test_a_staged_table_is_nowhere_until_it_is_committed(rest: RestCatalog, catalog: SqlCatalog) -> None:
    rest.create_namespace(("a", "b"))
    transaction = rest.create_table_transaction(("a", "b", "t"), COLUMNS, properties={"k": "v"})
    assert not catalog.table_exists(("a", "b", "t"))
    transaction.append(ROWS)
    transaction.commit_transaction()
    made = catalog.load_table(("a", "b", "t"))
    assert made.scan().to_arrow().num_rows == 2 and made.properties["k"] == "v"
    assert made.metadata.format_version == 2


def test_clients_may_leave_out_what_has_a_default(http: httpx.Client, rest: RestCatalog) -> None:
    rest.create_namespace("a")
    made = http.post("namespaces/a/tables", json={"name": "t", "schema": SCHEMA})
    assert made.status_code == 200, made.text
    staged = http.post("namespaces/a/tables", json={"name": "u", "schema": SCHEMA, "stage-create": True})
    assert staged.status_code == 200 and "metadata-location" not in staged.json()
    assert http.head("namespaces/a/tables/t").status_code == 204
    missing = http.head("namespaces/a/tables/u")
    assert (missing.status_code, missing.content) == (404, b"")


@pytest.mark.parametrize(
    "body", [{}, {"name": ""}, {"name": " t"}, {"name": "t", "schema": 5}, {"name": "t", "schema": {"type": "list"}}]
)
def test_creations_that_cannot_be(http: httpx.Client, rest: RestCatalog, body: dict[str, Any]) -> None:
    rest.create_namespace("a")
    refused = http.post("namespaces/a/tables", json={"schema": SCHEMA, **body})
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "BadRequestException")
    assert rest.list_tables("a") == []


@pytest.mark.parametrize("staged", [True, False])
def test_a_format_version_that_pyiceberg_does_not_write(http: httpx.Client, rest: RestCatalog, staged: bool) -> None:
    rest.create_namespace("a")
    body = {"name": "t", "schema": SCHEMA, "stage-create": staged, "properties": {"format-version": "3"}}
    refused = http.post("namespaces/a/tables", json=body)
    assert (refused.status_code, refused.json()["error"]["type"]) == (406, "UnsupportedOperationException")
    assert "format-version is 3: this catalog keeps up to 2" in refused.json()["error"]["message"]


def test_a_slash_in_a_name_does_not_nest_directories(rest: RestCatalog, catalog: SqlCatalog) -> None:
    """Orphan removal in the outer table's directory would take the inner table's files for orphans."""
    for namespace in ("a", "a/b"):
        rest.create_namespace((namespace,))
    places = [
        rest.create_table(identifier, COLUMNS).location()
        for identifier in [("a", "b"), ("a", "b/t"), ("a/b", "t"), ("a", "c")]
    ]
    assert not [(x, y) for x in places for y in places if y.startswith(f"{x}/")]
    assert rest.load_table(("a", "b/t")).name() == ("a", "b/t")
    assert sorted(catalog.list_tables(("a",))) == [("a", "b"), ("a", "b/t"), ("a", "c")]


def test_register(rest: RestCatalog, catalog: SqlCatalog, table: Table, tmp_path: Path) -> None:
    location = table.metadata_location
    rest.drop_table("a.t")
    assert rest.register_table("a.u", location).scan().to_arrow().num_rows == 2
    with pytest.raises(TableAlreadyExistsError):
        rest.register_table("a.u", location)
    secret = tmp_path / "secret"
    secret.write_text("hidden words")
    for wrong in (f"file://{secret}", f"file://{tmp_path}/nothing.json", "what://is/this"):
        with pytest.raises(Exception, match="cannot be read as the metadata of a table") as refused:
            rest.register_table("a.broken", wrong)
        assert "hidden" not in str(refused.value)
    assert rest.list_tables("a") == [("a", "u")], "a table that nobody can load is no table"


def test_rename(rest: RestCatalog, table: Table) -> None:
    rest.create_namespace("b")
    rest.create_table("a.u", COLUMNS)
    with pytest.raises(TableAlreadyExistsError):
        rest.rename_table("a.t", "a.u")
    with pytest.raises(NoSuchTableError):
        rest.rename_table("a.nothing", "b.t")
    with pytest.raises(NoSuchNamespaceError):
        rest.rename_table("a.t", "c.t")
    assert rest.rename_table("a.t", "b.v").scan().to_arrow().num_rows == 2
    assert rest.list_tables("a") == [("a", "u")] and rest.list_tables("b") == [("b", "v")]


def files_of(table: Table) -> list[Path]:
    return [path for path in Path(table.location().removeprefix("file://")).rglob("*") if path.is_file()]


def test_drop_keeps_files_and_purge_does_not(rest: RestCatalog, table: Table) -> None:
    rest.drop_table("a.t")
    assert files_of(table) and rest.list_tables("a") == []
    rest.register_table("a.t", table.metadata_location)
    rest.purge_table("a.t")
    assert rest.list_tables("a") == []
    assert [path for path in files_of(table) if path.suffix == ".parquet"] == []


def test_purge_keeps_files_that_other_tables_may_use(rest: RestCatalog, table: Table) -> None:
    """As of a table that Spark's procedure `snapshot` made: Trino asks for a purge with each DROP TABLE."""
    with table.transaction() as transaction:
        transaction.set_properties({"gc.enabled": "false"})
    before = files_of(table)
    rest.purge_table("a.t")
    assert rest.list_tables("a") == []
    assert files_of(table) == before


def test_lists_come_in_pages(http: httpx.Client, rest: RestCatalog) -> None:
    rest.create_namespace("a")
    for name in "cab":
        rest.create_table(f"a.{name}", COLUMNS)
    found, token = [], ""
    while token is not None:
        answer = http.get("namespaces/a/tables", params={"pageToken": token, "pageSize": 2}).json()
        found.append([entry["name"] for entry in answer["identifiers"]])
        token = answer.get("next-page-token")
    assert found == [["a", "b"], ["c"]]


def test_reports_are_taken(http: httpx.Client, table: Table) -> None:
    sent = http.post("namespaces/a/tables/t/metrics", json={"report-type": "scan-report", "table-name": "t"})
    assert (sent.status_code, sent.content) == (204, b"")
    assert http.post("namespaces/a/tables/t/metrics", content=b"no report").status_code == 400


def test_credentials_are_for_those_who_ask_and_may_have_them(catalog: SqlCatalog) -> None:
    key = {"s3.endpoint": "http://store", "s3.access-key-id": "me", "s3.secret-access-key": "hidden"}
    catalog.create_namespace("a")
    catalog.create_table("a.t", COLUMNS)
    catalog.properties.update(key)
    asking = {"X-Iceberg-Access-Delegation": "vended-credentials,remote-signing"}
    for vends, headers, config in (
        ("no", asking, {}),
        ("long-lived", {}, {}),
        ("long-lived", asking, {**key, "s3.path-style-access": "true"}),
    ):
        with serve(catalog, s3=S3AccessSettings(vends)) as endpoint:
            answer = httpx.get(f"{endpoint.url}/v1/namespaces/a/tables/t", headers=headers, trust_env=False)
            assert answer.json()["config"] == config
            assert answer.headers.get("cache-control") == ("no-store" if config else None)


def test_over_a_catalog_that_is_not_sql(rest: RestCatalog) -> None:
    """The catalog behind the second endpoint is the first one, over REST."""
    with serve(rest) as outer:
        client = outer.client()
        client.create_namespace("a")
        client.create_table("a.t", COLUMNS).append(ROWS)
        transaction = client.create_table_transaction("a.u", COLUMNS)
        transaction.append(ROWS)
        transaction.commit_transaction()
        assert client.rename_table("a.u", "a.v").scan().to_arrow().num_rows == 2
        client.purge_table("a.v")
        assert client.list_tables("a") == [("a", "t")]
        assert rest.load_table("a.t").scan().to_arrow().num_rows == 2

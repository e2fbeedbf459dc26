"""Commits of one table and of several, by PyIceberg's client, DuckDB and plain HTTP."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pyarrow as pa
import pytest
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitStateUnknownException
from pyiceberg.table import Table
from support.rest_endpoint import Endpoint, serve

from streamlake.lake import sql

COLUMNS = pa.schema([("x", pa.int64())])
ROWS = pa.table({"x": [1, 2]})


@pytest.fixture
def table(rest: RestCatalog) -> Table:
    rest.create_namespace("a")
    return rest.create_table("a.t", COLUMNS, properties={"k": "v"})


def change(name: str, *updates: dict[str, Any], **requirement: Any) -> dict[str, Any]:
    identifier = {"namespace": ["a"], "name": name}
    requirements = [requirement] if requirement else []
    return {"identifier": identifier, "requirements": requirements, "updates": list(updates)}


def set_property(key: str, value: str) -> dict[str, Any]:
    return {"action": "set-properties", "updates": {key: value}}


def test_what_was_made_for_an_older_table_is_refused(http: httpx.Client, rest: RestCatalog, table: Table) -> None:
    stale = {"type": "assert-ref-snapshot-id", "ref": "main", "snapshot-id": None}
    table.append(ROWS)
    refused = http.post("namespaces/a/tables/t", json=change("t", set_property("k", "w"), **stale))
    assert (refused.status_code, refused.json()["error"]["type"]) == (409, "CommitFailedException")
    assert rest.load_table("a.t").properties["k"] == "v"


def test_snapshots_that_are_gone_are_removed_with_the_others(
    http: httpx.Client, rest: RestCatalog, table: Table
) -> None:
    """As Iceberg's Java library has it: two may expire snapshots at once, as Spark does beside a topic's table."""
    for _ in range(3):
        table.append(ROWS)
    first, second, current = (snapshot.snapshot_id for snapshot in table.metadata.snapshots)
    for ids in ([first], [first, second], [first, second]):
        removal = {"action": "remove-snapshots", "snapshot-ids": ids}
        done = http.post(
            "namespaces/a/tables/t",
            json=change("t", removal, type="assert-table-uuid", uuid=str(table.metadata.table_uuid)),
        )
        assert done.status_code == 200, done.text
    left = rest.load_table("a.t")
    assert [snapshot.snapshot_id for snapshot in left.metadata.snapshots] == [current]
    assert left.scan().to_arrow().num_rows == 3 * len(ROWS)


def test_writers_at_the_same_time(rest: RestCatalog, endpoint: Endpoint, table: Table) -> None:
    """PyIceberg tries again after a 409: each row is there once."""

    def append(n: int) -> None:
        endpoint.client(**{"commit.retry.num-retries": "50"}).load_table("a.t").append(pa.table({"x": [n]}))

    rest.load_table("a.t").transaction().set_properties({"commit.retry.num-retries": "50"}).commit_transaction()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(append, range(8)))
    assert sorted(rest.load_table("a.t").scan().to_arrow()["x"].to_pylist()) == list(range(8))


def test_a_commit_that_no_requirement_forbids_is_made_for_the_newer_table(rest: RestCatalog, table: Table) -> None:
    stale = rest.load_table("a.t")
    table.append(ROWS)
    with stale.transaction() as transaction:
        transaction.set_properties(other="w")
    now = rest.load_table("a.t")
    assert now.properties == {"k": "v", "other": "w"} and now.scan().to_arrow().num_rows == 2


def test_the_path_says_which_table(http: httpx.Client, rest: RestCatalog, table: Table) -> None:
    rest.create_table("a.u", COLUMNS)
    done = http.post("namespaces/a/tables/t", json=change("u", set_property("here", "1")))
    assert done.status_code == 200 and done.json()["metadata"]["properties"]["here"] == "1"
    assert rest.load_table("a.t").properties["here"] == "1" and "here" not in rest.load_table("a.u").properties


def test_a_commit_that_changes_nothing_writes_nothing(http: httpx.Client, table: Table) -> None:
    done = http.post("namespaces/a/tables/t", json=change("t"))
    assert done.json()["metadata-location"] == table.metadata_location


def test_removing_a_property_that_is_not_there(http: httpx.Client, rest: RestCatalog, table: Table) -> None:
    removal = {"action": "remove-properties", "removals": ["k", "never"]}
    assert http.post("namespaces/a/tables/t", json=change("t", removal)).status_code == 200
    assert rest.load_table("a.t").properties == {}


@pytest.mark.parametrize(
    ("name", "body", "status", "kind"),
    [
        (
            "t",
            change("t", set_property("k", "w"), type="assert-table-uuid", uuid="0" * 32),
            409,
            "CommitFailedException",
        ),
        ("t", change("t", type="assert-create"), 409, "CommitFailedException"),
        ("u", change("u", set_property("k", "w")), 404, "NoSuchTableException"),
        ("t", change("t", {"action": "set-current-schema", "schema-id": 9}), 400, "BadRequestException"),
        ("t", change("t", {"action": "fly"}), 400, "BadRequestException"),
        ("t", change("t", type="assert-luck"), 400, "BadRequestException"),
        ("t", {"updates": "all"}, 400, "BadRequestException"),
    ],
)
def test_refused(http: httpx.Client, table: Table, name: str, body: dict[str, Any], status: int, kind: str) -> None:
    refused = http.post(f"namespaces/a/tables/{name}", json=body)
    assert (refused.status_code, refused.json()["error"]["type"]) == (status, kind)
    assert table.refresh().metadata.properties == {"k": "v"}


def test_old_metadata_files_go_when_the_table_asks_for_it(rest: RestCatalog) -> None:
    rest.create_namespace("a")
    wanted = {"write.metadata.delete-after-commit.enabled": "true", "write.metadata.previous-versions-max": "1"}
    table = rest.create_table("a.t", COLUMNS, properties=wanted)
    first = table.metadata_location
    for _ in range(2):
        table.append(ROWS)
    assert not table.io.new_input(first).exists() and table.io.new_input(table.metadata_location).exists()
    assert rest.load_table("a.t").scan().to_arrow().num_rows == 4


# -- several tables ---------------------------------------------------------------------------------------------------


def test_all_tables_of_a_transaction_or_none(http: httpx.Client, rest: RestCatalog, table: Table) -> None:
    rest.create_table("a.u", COLUMNS)
    both = [change("t", set_property("n", "1")), change("u", set_property("n", "1"))]
    done = http.post("transactions/commit", json={"table-changes": both})
    assert (done.status_code, done.content) == (204, b"")
    assert [rest.load_table(f"a.{name}").properties["n"] for name in "tu"] == ["1", "1"]
    wrong = change("u", set_property("n", "2"), type="assert-table-uuid", uuid="0" * 32)
    refused = http.post("transactions/commit", json={"table-changes": [change("t", set_property("n", "2")), wrong]})
    assert (refused.status_code, refused.json()["error"]["type"]) == (409, "CommitFailedException")
    assert [rest.load_table(f"a.{name}").properties["n"] for name in "tu"] == ["1", "1"]


@pytest.mark.parametrize("changes", [[], [change("t"), change("t")], [{"updates": []}], [change("t")] * 101, "all"])
def test_transactions_that_are_none(http: httpx.Client, table: Table, changes: Any) -> None:
    refused = http.post("transactions/commit", json={"table-changes": changes})
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "BadRequestException")


def test_duckdb_writes_two_tables_in_one_transaction(endpoint: Endpoint, rest: RestCatalog) -> None:
    rest.create_namespace("a")
    lake = sql.connect()
    lake.execute(f"ATTACH 'streamlake' AS w (TYPE iceberg, ENDPOINT '{endpoint.url}', AUTHORIZATION_TYPE 'none')")
    for statement in (
        "CREATE TABLE w.a.t (k BIGINT, v VARCHAR)",
        "CREATE TABLE w.a.u AS SELECT 2::BIGINT AS k",
        "INSERT INTO w.a.t VALUES (1, 'x'), (2, 'y')",
        "BEGIN",
        "INSERT INTO w.a.t VALUES (3, 'z')",
        "INSERT INTO w.a.u VALUES (3)",
        "COMMIT",
        "DELETE FROM w.a.t WHERE k = 1",
        "UPDATE w.a.t SET v = 'changed' WHERE k = 2",
        "ALTER TABLE w.a.t ADD COLUMN n VARCHAR",
    ):
        lake.execute(statement)
    assert lake.execute("SELECT k, v FROM w.a.t ORDER BY k").fetchall() == [(2, "changed"), (3, "z")]
    lake.execute("BEGIN; INSERT INTO w.a.t VALUES (4, 'lost', NULL); INSERT INTO w.a.u VALUES (4)")
    rest.drop_table("a.u")
    with pytest.raises(Exception, match=r"a\.u|409|404"):
        lake.execute("COMMIT")
    lake.close()
    assert sorted(rest.load_table("a.t").scan().to_arrow()["k"].to_pylist()) == [2, 3], "all tables, or none"


# -- over a catalog that is not SQL -----------------------------------------------------------------------------------


def test_over_another_catalog(rest: RestCatalog, catalog: SqlCatalog, table: Table) -> None:
    with serve(rest) as outer:
        client = outer.client()
        client.load_table("a.t").append(ROWS)
        assert catalog.load_table("a.t").scan().to_arrow().num_rows == 2
        with httpx.Client(base_url=f"{outer.url}/v1/", trust_env=False) as http:
            missing = http.post("namespaces/a/tables/u", json=change("u", set_property("k", "w")))
            assert missing.status_code == 404
            stale = change("t", set_property("k", "w"), type="assert-table-uuid", uuid="0" * 32)
            assert http.post("namespaces/a/tables/t", json=stale).status_code == 409


def test_what_the_catalog_behind_does_not_answer_may_have_happened(catalog: SqlCatalog, table: Table) -> None:
    with serve(catalog) as inner:
        behind = inner.client()
        with serve(behind) as outer:
            stale = outer.client().load_table("a.t")
            behind.uri = "http://127.0.0.1:9/"
            behind._session.trust_env = False
            with pytest.raises(CommitStateUnknownException), stale.transaction() as transaction:
                transaction.set_properties(k="w")

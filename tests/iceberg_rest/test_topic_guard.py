"""What clients may do to a topic's table, and what only if they insist."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import pyarrow as pa
import pytest
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import ForbiddenError
from pyiceberg.table import Table
from pyiceberg.types import StringType
from support.rest_endpoint import Endpoint

from streamlake.table.commit.progress import PROGRESS, TAG

COLUMNS = pa.schema([("x", pa.int64())])
ROWS = pa.table({"x": [1, 2]})
FORCE = {"X-StreamLake-Force": "true"}


class Task:
    """Of a topic that feeds the table."""

    def __init__(self) -> None:
        self.spec = SimpleNamespace(topic="orders")
        self.pauses = 0

    async def refresh(self) -> None:
        pass

    def pause_refresh(self) -> None:
        self.pauses += 1


@pytest.fixture
def table(rest: RestCatalog) -> Table:
    """As the committer leaves it: a tag and the progress property."""
    rest.create_namespace("a")
    table = rest.create_table("a.t", COLUMNS)
    table.append(ROWS)
    head = table.current_snapshot()
    assert head is not None
    table.manage_snapshots().create_tag(head.snapshot_id, TAG).commit()
    with table.transaction() as transaction:
        transaction.set_properties({PROGRESS: "{}"})
    return table


@pytest.fixture
def task(endpoint: Endpoint, table: Table) -> Iterator[Task]:
    task = Task()
    endpoint.tables.fed[("a", "t")] = task
    yield task
    endpoint.tables.fed.clear()


def snapshot(**summary: str) -> dict[str, Any]:
    return {
        "snapshot-id": 5,
        "sequence-number": 9,
        "timestamp-ms": 1_900_000_000_000,
        "manifest-list": "file:///nowhere",
        "summary": {"operation": "append", **summary},
    }


BREAKING: dict[str, dict[str, Any]] = {
    "the tag is dropped": {"action": "remove-snapshot-ref", "ref-name": TAG},
    "main is dropped": {"action": "remove-snapshot-ref", "ref-name": "main"},
    "the tag is moved": {"action": "set-snapshot-ref", "ref-name": TAG, "type": "tag", "snapshot-id": "HEAD"},
    "main is moved blindly": {
        "action": "set-snapshot-ref", "ref-name": "main", "type": "branch", "snapshot-id": "HEAD",
    },
    "the tagged snapshot is removed": {"action": "remove-snapshots", "snapshot-ids": ["HEAD"]},
    "a snapshot claims progress": {"action": "add-snapshot", "snapshot": snapshot(**{PROGRESS: "{}"})},
    "the progress is set": {"action": "set-properties", "updates": {PROGRESS: "other"}},
    "the progress is removed": {"action": "remove-properties", "removals": [PROGRESS]},
    "another uuid": {"action": "assign-uuid", "uuid": str(uuid4())},
    "a format version that we do not write": {"action": "upgrade-format-version", "format-version": 3},
}  # fmt: skip


def commit_of(table: Table, update: dict[str, Any]) -> dict[str, Any]:
    head = table.current_snapshot()
    assert head is not None
    filled = {
        key: head.snapshot_id if value == "HEAD" else [head.snapshot_id] if value == ["HEAD"] else value
        for key, value in update.items()
    }
    return {"requirements": [], "updates": [filled]}


@pytest.mark.parametrize("update", BREAKING.values(), ids=BREAKING)
def test_what_would_break_exactly_once_is_refused(
    http: httpx.Client, task: Task, table: Table, update: dict[str, Any]
) -> None:
    before = table.metadata
    refused = http.post("namespaces/a/tables/t", json=commit_of(table, update))
    error = refused.json()["error"]
    assert (refused.status_code, error["type"]) == (403, "ForbiddenException")
    assert "table a.t is fed by topic orders, exactly once: " in error["message"]
    assert error["message"].endswith("To do it all the same, send X-StreamLake-Force: true")
    identified = {"identifier": {"namespace": ["a"], "name": "t"}, **commit_of(table, update)}
    assert http.post("transactions/commit", json={"table-changes": [identified]}).status_code == 403
    assert table.refresh().metadata == before
    assert task.pauses == 2, "an attempt counts as one, whatever came of it"
    forced = http.post("namespaces/a/tables/t", json=commit_of(table, update), headers=FORCE)
    assert forced.status_code != 403


@pytest.mark.parametrize("update", BREAKING.values(), ids=BREAKING)
def test_other_tables_are_their_owners_business(http: httpx.Client, table: Table, update: dict[str, Any]) -> None:
    assert http.post("namespaces/a/tables/t", json=commit_of(table, update)).status_code != 403


def test_maintenance_is_welcome(rest: RestCatalog, task: Task, table: Table) -> None:
    table = rest.load_table("a.t")
    table.append(ROWS)
    table.delete("x = 1")
    with table.update_schema() as change:
        change.add_column("y", StringType())
    with table.transaction() as transaction:
        transaction.set_properties({"write.target-file-size-bytes": "1000000"})
    newest = rest.load_table("a.t")
    tagged = newest.metadata.refs[TAG].snapshot_id
    others = [
        s.snapshot_id
        for s in newest.metadata.snapshots
        if s.snapshot_id not in (tagged, newest.metadata.current_snapshot_id)
    ]
    newest.maintenance.expire_snapshots().by_ids(others).commit()
    assert newest.refresh().scan().to_arrow()["x"].to_pylist() == [2, 2]
    assert newest.metadata.refs[TAG].snapshot_id == tagged and PROGRESS in newest.properties
    assert task.pauses >= 5


def test_dropping_and_renaming(rest: RestCatalog, endpoint: Endpoint, task: Task, table: Table) -> None:
    for act in (
        lambda c: c.drop_table("a.t"),
        lambda c: c.purge_table("a.t"),
        lambda c: c.rename_table("a.t", "a.u"),
    ):
        with pytest.raises(ForbiddenError, match=r"streamlake\.table\.enable=false.*X-StreamLake-Force: true"):
            act(rest)
    assert rest.load_table("a.t").scan().to_arrow().num_rows == 2
    insisting = endpoint.client(**{"header.X-StreamLake-Force": "true"})
    insisting.rename_table("a.t", "a.u")
    assert rest.list_tables("a") == [("a", "u")]


def test_a_namespace_with_dots_is_one_and_the_same(endpoint: Endpoint, rest: RestCatalog) -> None:
    """A topic's config names it as one text, a client as levels."""
    rest.create_namespace(("a", "b"))
    rest.create_table(("a", "b", "t"), COLUMNS)
    endpoint.tables.fed[("a.b", "t")] = Task()
    with pytest.raises(ForbiddenError):
        rest.drop_table(("a", "b", "t"))

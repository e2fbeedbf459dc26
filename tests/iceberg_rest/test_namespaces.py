"""Namespaces, by PyIceberg's client and by plain HTTP."""

from typing import Any

import httpx
import pyarrow as pa
import pytest
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NamespaceAlreadyExistsError, NamespaceNotEmptyError, NoSuchNamespaceError

COLUMNS = pa.schema([("x", pa.int64())])


def test_created_listed_loaded_changed_dropped(rest: RestCatalog) -> None:
    rest.create_namespace("a", {"owner": "me", "old": "1"})
    rest.create_namespace(("a", "b"))
    assert rest.list_namespaces() == [("a",)] and rest.list_namespaces("a") == [("a", "b")]
    assert rest.namespace_exists("a") and not rest.namespace_exists("c")
    assert rest.load_namespace_properties("a") == {"owner": "me", "old": "1"}
    done = rest.update_namespace_properties("a", {"old", "never"}, {"owner": "you", "new": "2"})
    assert (done.removed, sorted(done.updated), done.missing) == (["old"], ["new", "owner"], ["never"])
    assert rest.load_namespace_properties("a") == {"owner": "you", "new": "2"}
    with pytest.raises(NamespaceNotEmptyError, match=r"it holds a\.b"):
        rest.drop_namespace("a")
    rest.drop_namespace(("a", "b"))
    rest.drop_namespace("a")
    assert rest.list_namespaces() == []


def test_one_without_properties_stays_when_its_last_is_removed(rest: RestCatalog) -> None:
    """The SQL catalog knows a namespace by its properties alone."""
    rest.create_namespace("a", {"k": "v"})
    rest.update_namespace_properties("a", {"k"})
    assert rest.namespace_exists("a") and rest.load_namespace_properties("a") == {}


def test_what_is_there_twice_or_not_at_all(rest: RestCatalog) -> None:
    rest.create_namespace("a")
    rest.create_table("a.t", COLUMNS)
    with pytest.raises(NamespaceAlreadyExistsError):
        rest.create_namespace("a")
    with pytest.raises(NamespaceNotEmptyError):
        rest.drop_namespace("a")
    with pytest.raises(NoSuchNamespaceError):
        rest.drop_namespace("b")
    with pytest.raises(NoSuchNamespaceError):
        rest.load_namespace_properties("b")
    with pytest.raises(NoSuchNamespaceError):
        rest.list_namespaces("b")
    with pytest.raises(NoSuchNamespaceError):
        rest.list_tables("b")


def test_one_that_somebody_else_creates_at_the_same_time(
    rest: RestCatalog, catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SQL catalog looks first, and then inserts."""
    rest.create_namespace("a")
    monkeypatch.setattr(catalog, "namespace_exists", lambda _: False)
    with pytest.raises(NamespaceAlreadyExistsError):
        rest.create_namespace("a")


def test_pages(http: httpx.Client, rest: RestCatalog) -> None:
    for name in "cab":
        rest.create_namespace(name)
    first = http.get("namespaces", params={"pageToken": "", "pageSize": 2}).json()
    assert first == {"namespaces": [["a"], ["b"]], "next-page-token": "2"}
    rest_of = http.get("namespaces", params={"pageToken": "2", "pageSize": 2}).json()
    assert rest_of == {"namespaces": [["c"]]}
    assert http.get("namespaces", params={"pageSize": "many"}).status_code == 400
    assert http.get("namespaces", params={"pageSize": 0}).status_code == 400


@pytest.mark.parametrize("namespace", [[], [""], ["a.b"], [" a"], "a", [1]])
def test_names_that_cannot_be(http: httpx.Client, namespace: Any) -> None:
    refused = http.post("namespaces", json={"namespace": namespace})
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "BadRequestException")


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"[" * 100_000, b'{"removals": 5}'])
def test_bodies_that_are_none(http: httpx.Client, rest: RestCatalog, body: bytes) -> None:
    rest.create_namespace("a")
    refused = http.post("namespaces/a/properties", content=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, 400)


def test_changes_that_contradict(http: httpx.Client, rest: RestCatalog) -> None:
    rest.create_namespace("a")
    refused = http.post("namespaces/a/properties", json={"removals": ["k"], "updates": {"k": "v"}})
    assert refused.status_code in (400, 422) and "both name k" in refused.json()["error"]["message"]
    refused = http.post("namespaces/a/properties", json={"removals": ["exists"]})
    assert refused.status_code == 400 and rest.namespace_exists("a")

"""The list of routes, and what `config` tells of it."""

import httpx
import pytest
from pyiceberg.catalog.rest import RestCatalog
from support.rest_endpoint import serve

from streamlake.catalogs.named import REST_WORDS
from streamlake.iceberg_rest import namespaces, tables
from streamlake.iceberg_rest.problem import Problem
from streamlake.iceberg_rest.routes import ROUTES, find

TRANSACTION = "POST /v1/{prefix}/transactions/commit"


def test_config_lists_what_there_is(http: httpx.Client) -> None:
    told = http.get("config").json()
    assert (told["defaults"], told["overrides"]) == ({}, {})
    assert "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}" in told["endpoints"]
    assert TRANSACTION in told["endpoints"], "a SQL catalog commits several tables at once"
    assert not [line for line in told["endpoints"] if "views" in line or "config" in line]


def test_a_transaction_is_listed_only_where_it_is_atomic(rest: RestCatalog) -> None:
    """The catalog behind the second endpoint is the first one, over REST."""
    with serve(rest) as outer:
        told = httpx.get(f"{outer.url}/v1/config", trust_env=False).json()
        assert TRANSACTION not in told["endpoints"] and len(told["endpoints"]) > 10
        refused = httpx.post(f"{outer.url}/v1/transactions/commit", json={"table-changes": []}, trust_env=False)
        assert refused.status_code == 406


def test_who_names_a_warehouse_is_told_its_prefix(http: httpx.Client) -> None:
    for name in ("lake", "streamlake"):  # ours, and what PyIceberg calls it
        assert http.get("config", params={"warehouse": name}).json()["overrides"] == {"prefix": "lake"}
    assert http.get("lake/namespaces").json() == http.get("namespaces").json() == {"namespaces": []}
    other = http.get("config", params={"warehouse": "other"})
    assert (other.status_code, other.json()["error"]["type"]) == (404, "NoSuchWarehouseException")
    assert "'streamlake' or 'lake'" in other.json()["error"]["message"]


def test_names_are_decoded_after_the_path_is_cut() -> None:
    route, parameters = find("GET", ["namespaces", "a%1Fb", "tables", "c%2Fd%20e"])
    assert (route.handle, parameters) == (tables.load, {"namespace": "a\x1fb", "table": "c/d e"})
    assert find("HEAD", ["namespaces", "a"])[0].handle is namespaces.exists


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "nothing", 404),
        ("GET", "", 404),
        ("GET", "namespaces//tables", 404),
        ("GET", "tables/rename", 405),
        ("DELETE", "config", 405),
    ],
)
def test_what_is_not_there(method: str, path: str, status: int) -> None:
    with pytest.raises(Problem) as refused:
        find(method, path.split("/"))
    assert refused.value.status == status


def test_each_route_is_there_once() -> None:
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


def test_no_catalog_can_be_called_as_a_path_begins() -> None:
    """A path that begins so would be taken for one of the default catalog."""
    assert {route.path.split("/")[0] for route in ROUTES} <= set(REST_WORDS)

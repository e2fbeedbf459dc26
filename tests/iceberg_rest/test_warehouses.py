"""Which catalog a request is for."""

import pytest

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.named import NamedCatalogs
from streamlake.iceberg_rest.problem import Problem
from streamlake.iceberg_rest.warehouses import Warehouses
from streamlake.table.task.control import CatalogCall

CATALOGS = {name: CatalogConfig("sql", name, {}) for name in ("lake", "archive")}
CATALOGS["sql"] = CatalogConfig("sql", "streamlake", {})


def target(path: str, query: str = "", default: str = "sql") -> tuple[str, tuple[str, ...], bool]:
    found = Warehouses(NamedCatalogs(default, CATALOGS)).target(CatalogCall(0, "GET", path, query))
    return found.catalog, found.path, found.is_named


@pytest.mark.parametrize(
    ("query", "catalog", "is_named"),
    [
        ("", "sql", False),
        ("warehouse=", "sql", False),
        ("warehouse=sql", "sql", True),
        ("warehouse=streamlake", "sql", True),
        ("x=1&warehouse=%6Cake", "lake", True),
    ],
)
def test_config_names_a_catalog(query: str, catalog: str, is_named: bool) -> None:
    assert target("v1/config", query) == (catalog, ("config",), is_named)


@pytest.mark.parametrize(
    ("path", "catalog", "rest", "is_named"),
    [
        ("v1/namespaces", "sql", ("namespaces",), False),
        ("v1/namespaces/a%2Fb/tables/", "sql", ("namespaces", "a%2Fb", "tables"), False),
        ("v1/lake/namespaces", "lake", ("namespaces",), True),
        ("v1/%6cake/namespaces/namespaces", "lake", ("namespaces", "namespaces"), True),
        ("v1/sql/tables/rename", "sql", ("tables", "rename"), True),
        ("v1/namespaces/lake/tables", "sql", ("namespaces", "lake", "tables"), False),
    ],
)
def test_a_prefix_names_a_catalog(path: str, catalog: str, rest: tuple[str, ...], is_named: bool) -> None:
    assert target(path) == (catalog, rest, is_named)


def test_a_name_of_ours_comes_before_one_of_pyiceberg() -> None:
    catalogs = {"lake": CatalogConfig("sql", "archive", {}), "archive": CATALOGS["archive"]}
    warehouses = Warehouses(NamedCatalogs("lake", catalogs))
    assert warehouses.target(CatalogCall(0, "GET", "v1/config", "warehouse=archive")).catalog == "archive"


@pytest.mark.parametrize(
    ("path", "query"), [("v1/config", "warehouse=other"), ("v1/other/namespaces", ""), ("v1/streamlakes", "")]
)
def test_who_asks_for_another_is_told_the_names(path: str, query: str) -> None:
    with pytest.raises(Problem, match="leave it out, or use 'streamlake' or 'lake' or 'archive' or 'sql'") as refused:
        target(path, query)
    assert (refused.value.status, refused.value.kind) == (404, "NoSuchWarehouseException")


@pytest.mark.parametrize(("path", "query", "status"), [
    ("", "", 404), ("v1", "", 404), ("v2/config", "", 404), ("v2/lake/namespaces", "", 404),
    ("v1/namespaces", "&".join(f"k{n}=1" for n in range(1000)), 400),
])  # fmt: skip
def test_what_cannot_be_understood(path: str, query: str, status: int) -> None:
    with pytest.raises(Problem) as refused:
        target(path, query)
    assert refused.value.status == status

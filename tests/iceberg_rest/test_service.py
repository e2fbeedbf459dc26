"""From a call of the server to its answer: catching up first, threads, limits."""

import threading
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from support.rest_endpoint import NoTables

from streamlake.catalogs.capabilities import Capabilities
from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.named import NamedCatalogs
from streamlake.core.clock import SystemClock
from streamlake.core.tasks import ThreadExecutor
from streamlake.iceberg_rest import service as module
from streamlake.iceberg_rest.s3.access import S3Access
from streamlake.iceberg_rest.service import IcebergRest
from streamlake.iceberg_rest.warehouses import Warehouses
from streamlake.table.task.control import CatalogAnswer, CatalogCall, S3AccessSettings

TABLE = "v1/namespaces/a/tables/t"
WAREHOUSES = Warehouses(NamedCatalogs("lake", {"lake": CatalogConfig("sql", "lake", {})}))


class Task:
    """Of a topic that feeds a table: what it has is in the table once it was asked."""

    def __init__(self, catalog: SqlCatalog) -> None:
        self.spec = SimpleNamespace(topic="orders")
        self.asked: list[str] = []
        self._catalog = catalog

    async def refresh(self) -> None:
        self.asked.append("refresh")
        self._catalog.load_table("a.t").append(pa.table({"x": [1]}))

    def pause_refresh(self) -> None:
        self.asked.append("pause")


@pytest.fixture
def tables(catalog: SqlCatalog) -> NoTables:
    catalog.create_namespace("a")
    catalog.create_table("a.t", pa.schema([("x", pa.int64())]))
    return NoTables()


@pytest.fixture
def service(catalog: SqlCatalog, tables: NoTables) -> IcebergRest:
    access = S3Access(S3AccessSettings(), "lake", catalog, SystemClock())
    return IcebergRest(catalog, "lake", Capabilities(), tables, ThreadExecutor("test", 2), access)


async def answer_of(service: IcebergRest, call: CatalogCall) -> CatalogAnswer:
    return await service.answer(call, WAREHOUSES.target(call))


async def test_a_load_comes_after_the_topic_caught_up(
    service: IcebergRest, catalog: SqlCatalog, tables: NoTables
) -> None:
    task = tables.fed["a", "t"] = Task(catalog)
    answer = await answer_of(service, CatalogCall(7, "GET", TABLE))
    assert (answer.number, answer.status) == (7, 200) and b'"total-records":"1"' in answer.body
    unchanged = await answer_of(service, CatalogCall(8, "HEAD", TABLE))
    assert (unchanged.status, task.asked) == (204, ["refresh"])
    await answer_of(service, CatalogCall(9, "POST", TABLE, body=b'{"requirements": [], "updates": []}'))
    assert task.asked == ["refresh", "pause"]


async def test_the_catalog_is_asked_off_the_loop(
    service: IcebergRest, catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[Any] = []
    load = catalog.load_table
    monkeypatch.setattr(catalog, "load_table", lambda name: threads.append(threading.current_thread()) or load(name))
    assert (await answer_of(service, CatalogCall(1, "GET", TABLE))).status == 200
    assert threads and threading.main_thread() not in threads


async def test_answers_have_a_limit(service: IcebergRest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_BYTES_MAX", 100)
    answer = await answer_of(service, CatalogCall(1, "GET", TABLE))
    assert answer.status == 500 and b"expire old snapshots" in answer.body


@pytest.mark.parametrize(
    ("method", "path", "query", "status"),
    [
        ("GET", "v1/tables/nowhere", "", 404),
        ("PUT", TABLE, "", 405),
        ("GET", "v1/namespaces/a/tables/u", "", 404),
    ],
)
async def test_refusals(service: IcebergRest, method: str, path: str, query: str, status: int) -> None:
    answer = await answer_of(service, CatalogCall(3, method, path, query))
    assert (answer.number, answer.status) == (3, status) and b'"error"' in answer.body


async def test_a_refused_head_has_no_body(service: IcebergRest) -> None:
    answer = await answer_of(service, CatalogCall(3, "HEAD", "v1/namespaces/a/tables/u"))
    assert (answer.status, answer.body) == (404, b"")

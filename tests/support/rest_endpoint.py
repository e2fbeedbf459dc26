"""The Iceberg REST endpoint as clients meet it, in this process: HTTP, tokens, routes, a real catalog; no topics."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.rest import RestCatalog
from support.wait import DEADLINE_S

from streamlake.catalogs.capabilities import Capabilities
from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.named import NamedCatalogs
from streamlake.core.clock import SystemClock
from streamlake.core.tasks import ThreadExecutor
from streamlake.http import iceberg
from streamlake.http.app import HttpServer, bind
from streamlake.iceberg_rest.problem import Problem
from streamlake.iceberg_rest.s3.access import S3Access
from streamlake.iceberg_rest.service import IcebergRest, refusal
from streamlake.iceberg_rest.warehouses import Warehouses
from streamlake.table.task.control import CatalogAnswer, CatalogCall, S3AccessSettings
from streamlake.table.task.tables import Fed, Tables
from streamlake.telemetry.metrics import Metrics


class NoTables(Tables):
    """No topic feeds a table, unless a test says so: `fed` has what stands for its task, by namespace and name."""

    def __init__(self) -> None:
        self.fed: dict[tuple[str, str], Any] = {}

    def feeding(self, catalog: str) -> dict[tuple[str, str], Fed]:
        return {key: Fed(task.spec.topic, task) for key, task in self.fed.items()}


class Endpoint:
    def __init__(self, catalog: Catalog, tokens: Sequence[str], s3: S3AccessSettings) -> None:
        self.tables = NoTables()
        self._executor = ThreadExecutor("test", 4)
        self._service = IcebergRest(
            catalog,
            "lake",
            Capabilities(),
            self.tables,
            self._executor,
            S3Access(s3, "lake", catalog, SystemClock()),
        )
        config = CatalogConfig("sql", catalog.name, {})
        self._warehouses = Warehouses(NamedCatalogs("lake", {"lake": config}))
        bound = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{bound.getsockname()[1]}/iceberg"
        self._metrics = Metrics()
        routes = iceberg.routes(self._answer, tokens, None)
        self._server = HttpServer(bound, routes, self._metrics, list, list, lambda: None)

    async def _answer(self, call: CatalogCall) -> CatalogAnswer:
        try:
            return await self._service.answer(call, self._warehouses.target(call))
        except Problem as problem:
            return refusal(call, problem)

    def client(self, **properties: str) -> RestCatalog:
        return RestCatalog("rest", uri=self.url, **properties)

    @contextmanager
    def running(self) -> Iterator["Endpoint"]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._server.start(), loop).result(DEADLINE_S)
            yield self
            asyncio.run_coroutine_threadsafe(self._server.stop(), loop).result(DEADLINE_S)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(DEADLINE_S)
            self._executor.close()
            self._metrics.close()


def serve(catalog: Catalog, tokens: Sequence[str] = (), s3: S3AccessSettings | None = None) -> Any:
    return Endpoint(catalog, tokens, s3 or S3AccessSettings()).running()

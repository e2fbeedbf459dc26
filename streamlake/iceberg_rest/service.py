"""Answers requests to the catalog: routes them, keeps blocking calls off the loop, and lets tables catch up first."""

from collections.abc import Mapping

from pyiceberg.catalog import Catalog

from streamlake.catalogs.capabilities import Capabilities
from streamlake.core.tasks import Executor
from streamlake.iceberg_rest import routes, tables
from streamlake.iceberg_rest.errors import problem_of
from streamlake.iceberg_rest.problem import Problem
from streamlake.iceberg_rest.request import Request
from streamlake.iceberg_rest.routes import Route
from streamlake.iceberg_rest.s3.access import S3Access
from streamlake.iceberg_rest.warehouses import Target
from streamlake.table.task.control import CatalogAnswer, CatalogCall
from streamlake.table.task.tables import Fed, Tables

ANSWER_BYTES_MAX = 10 << 20  # in base64 it fits into a line of the control protocol


class IcebergRest:
    """Over one catalog, which a thread of `executor` may use while others do. `name`: StreamLake's for it. `tables`:
    those that topics feed. `access`: to their files."""

    def __init__(
        self,
        catalog: Catalog,
        name: str,
        capabilities: Capabilities,
        tables: Tables,
        executor: Executor,
        access: S3Access,
    ) -> None:
        self._catalog = catalog
        self._name = name
        self._capabilities = capabilities
        self._tables = tables
        self._executor = executor
        self._access = access

    async def answer(self, call: CatalogCall, target: Target) -> CatalogAnswer:
        feeding = self._tables.feeding(self._name)
        try:
            route, request = self._understand(call, target, feeding)
        except Problem as problem:
            return refusal(call, problem)
        if route.handle is tables.load and (fed := feeding.get(request.key(request.table))) is not None and fed.task:
            await fed.task.refresh()
        try:
            return await self._executor.run(self._handle, route, request, call)
        finally:
            for key in request.attempted & feeding.keys():
                if (task := feeding[key].task) is not None:
                    task.pause_refresh()

    def _understand(
        self, call: CatalogCall, target: Target, feeding: Mapping[tuple[str, str], Fed]
    ) -> tuple[Route, Request]:
        route, parameters = routes.find(call.method, target.path)
        topics = {key: fed.topic for key, fed in feeding.items()}
        fold = self._capabilities.folded
        delegation = frozenset(part.strip().lower() for part in call.delegation.split(","))
        facts = call.body, call.etag, call.forced, delegation
        named = self._name, target.is_named
        return route, Request(parameters, target.query, *facts, topics, fold, *named, self._access)

    def _handle(self, route: Route, request: Request, call: CatalogCall) -> CatalogAnswer:
        """Blocks."""
        try:
            reply = route.handle(self._catalog, request)
            body = reply.body()
            if len(body) > ANSWER_BYTES_MAX:
                text = f"the answer has {len(body)} bytes, the limit is {ANSWER_BYTES_MAX}: expire old snapshots"
                raise Problem(500, "InternalServerError", text)
        except Exception as error:
            return refusal(call, problem_of(error, call.method, call.path))
        return CatalogAnswer(call.number, reply.status, body, reply.etag, reply.cache)


def refusal(call: CatalogCall, problem: Problem) -> CatalogAnswer:
    body = b"" if call.method == "HEAD" else problem.body()
    return CatalogAnswer(call.number, problem.status, body)

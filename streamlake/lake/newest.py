"""Where the metadata of a table is once all durable rows of its topic are in it: the server's REST catalog tells."""

import time
from collections.abc import Callable
from urllib.parse import quote

from streamlake.core.errors import NotFound, StreamLakeError
from streamlake.lake.http import get_json
from streamlake.lake.progress import Report
from streamlake.lake.views import Name, split

FIRST_COMMIT_S = 5.0
POLL_S = 0.1


class NewestMetadata:
    """Asks the catalog at `uri`, with one of the server's tokens if it wants one. `warn` is called with a problem in
    words."""

    def __init__(self, uri: str, token: str | None, warn: Callable[[str], None]) -> None:
        self._iceberg = f"{uri}/v1"
        self._token = token
        self._warn = warn
        self._served: dict[str, bool] = {}  # catalogs, by whether the endpoint answers for them

    def __call__(self, report: Report, name: Name) -> str | None:
        """Of a table, or the dead letters, of this report; None if the endpoint does not tell."""
        catalog = report["catalog"]
        try:
            if catalog not in self._served:
                self._served[catalog] = self._is_served(catalog)
            return self._awaited(report, name) if self._served[catalog] else None
        except StreamLakeError as error:
            self._served[catalog] = False
            self._warn(f"rows that are not committed yet are missing: {error}")
            return None

    def _is_served(self, catalog: str) -> bool:
        try:
            get_json(self._iceberg, f"/config?warehouse={quote(catalog, safe='')}", self._token)
        except NotFound:  # a server without the endpoint
            return False
        return True

    def _awaited(self, report: Report, name: Name) -> str | None:
        """The first rows of a topic are committed at once, but a load does not make a table: it is waited for here."""
        deadline = time.perf_counter() + FIRST_COMMIT_S
        is_coming = report["lag"] and split(report["table"], report["namespace"]) == name
        while (
            (location := self._location(report["catalog"], name)) is None
            and is_coming
            and time.perf_counter() < deadline
        ):
            time.sleep(POLL_S)  # noqa: TID251 - a person waits here, not an event loop
        return location

    def _location(self, catalog: str, name: Name) -> str | None:
        """In that catalog: another may have a table of the same name."""
        namespace, table = quote(name.namespace, safe=""), quote(name.table, safe="")
        try:
            path = f"/{quote(catalog, safe='')}/namespaces/{namespace}/tables/{table}?snapshots=refs"
            return str(get_json(self._iceberg, path, self._token)["metadata-location"])
        except NotFound:  # no commit yet
            return None

"""The Iceberg REST catalog: pyiceberg's, with a time limit on every request and no retry of its own.

pyiceberg sets no timeout, so a catalog that hangs would hang a thread for ever; and a commit that an adapter
retries may conflict with its own first attempt, which landed. Whether a commit is sent again is the committer's choice.
"""

from dataclasses import replace
from typing import Any

from pyiceberg.catalog.rest import API_PREFIX, SIGV4_MAX_RETRIES, Endpoint, HttpMethod, RestCatalog
from pyiceberg.io import S3_CONNECT_TIMEOUT, S3_REQUEST_TIMEOUT
from requests import PreparedRequest, Response, Session
from requests.adapters import BaseAdapter

from streamlake.catalogs.capabilities import Capabilities
from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.files import file_io
from streamlake.core.disk import Disk

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
TRANSACTIONS = Endpoint(http_method=HttpMethod.POST, path=f"{API_PREFIX}/transactions/commit")


def load(config: CatalogConfig, disk: Disk) -> RestCatalog:
    """Connect and read the server's configuration. Raises what requests and pyiceberg raise."""
    properties = dict(config.properties)
    properties.setdefault(SIGV4_MAX_RETRIES, "0")
    properties.setdefault(S3_CONNECT_TIMEOUT, str(CONNECT_TIMEOUT_S))
    properties.setdefault(S3_REQUEST_TIMEOUT, str(READ_TIMEOUT_S))
    file_io.choose_for(properties, disk)
    # pyiceberg takes a first namespace that is called as its catalog for the catalog's name, and cuts it off in a
    # commit. No namespace has a space.
    return TimedRestCatalog(f"catalog {config.name}", **properties)


def refined(known: Capabilities, catalog: RestCatalog) -> Capabilities:
    """What the server's own configuration tells."""
    if str(catalog.properties.get("nessie.is-nessie-catalog", "")).lower() == "true":
        # Nessie's history is its own: a table has one snapshot without a parent, and tags are accepted and dropped.
        known = replace(known, keeps_tags=False, keeps_history=False)
    return replace(known, multi_table_commit=TRANSACTIONS in catalog._supported_endpoints)


class TimedRestCatalog(RestCatalog):
    def _create_session(self) -> Session:
        """Private in pyiceberg, but its constructor already talks to the server through it."""
        session = super()._create_session()
        for prefix, adapter in list(session.adapters.items()):
            session.mount(prefix, TimedAdapter(adapter))
        return session


class TimedAdapter(BaseAdapter):
    """Another adapter (plain, or one that signs) with a time limit."""

    def __init__(self, inner: BaseAdapter) -> None:
        super().__init__()
        self._inner = inner

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: dict[str, str] | None = None,
    ) -> Response:
        limit = timeout if timeout is not None else (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        return self._inner.send(request, stream=stream, timeout=limit, verify=verify, cert=cert, proxies=proxies)

    def close(self) -> None:
        self._inner.close()

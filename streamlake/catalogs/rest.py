"""The Iceberg REST catalog: pyiceberg's, with a time limit on every request and no retry of its own.

pyiceberg sets no timeout, so a catalog that hangs would hang a thread for ever; and a commit that an adapter
retries may conflict with its own first attempt, which landed. Whether a commit is sent again is the committer's choice.

Commits that add a schema say `last-column-id`. It is deprecated and optional in the REST specification, and pyiceberg
has dropped it, but some servers refuse a commit without it, such as Nessie until the autumn of 2025 (its issue 11341).
"""

import json
from dataclasses import replace
from typing import Any

from pyiceberg.catalog.rest import API_PREFIX, SIGV4_MAX_RETRIES, Endpoint, HttpMethod, RestCatalog
from pyiceberg.io import S3_CONNECT_TIMEOUT, S3_REQUEST_TIMEOUT
from pyiceberg.schema import Schema
from requests import PreparedRequest, Response, Session
from requests.adapters import BaseAdapter

from streamlake.catalogs.capabilities import Capabilities
from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.files import file_io
from streamlake.core.disk import Disk

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
ADD_SCHEMA = "add-schema"
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
    """Another adapter (plain, or one that signs) with a time limit, and the last column id in new schemas."""

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
        if isinstance(request.body, bytes) and ADD_SCHEMA.encode() in request.body:
            request.prepare_body(with_last_column_ids(request.body), None)
        limit = timeout if timeout is not None else (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        return self._inner.send(request, stream=stream, timeout=limit, verify=verify, cert=cert, proxies=proxies)

    def close(self) -> None:
        self._inner.close()


def with_last_column_ids(body: bytes) -> bytes:
    """A commit as JSON, whose new schemas say the highest column id that the table then has given out."""
    commit = json.loads(body)
    assigned = [known.get("last-assigned-field-id", 0) for known in commit.get("requirements", ())]
    for update in commit.get("updates", ()):
        if update.get("action") == ADD_SCHEMA:
            added = Schema.model_validate(update["schema"]).highest_field_id
            update.setdefault("last-column-id", max(added, *assigned, 0))
    return json.dumps(commit).encode()

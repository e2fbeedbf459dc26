"""The endpoint over the embedded catalog, and its clients: PyIceberg, DuckDB, plain HTTP."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog
from support.rest_endpoint import Endpoint, serve

from streamlake.catalogs import kinds
from streamlake.catalogs.config import embedded


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqlCatalog]:
    catalog = kinds.load(embedded(tmp_path, None))
    assert isinstance(catalog, SqlCatalog)
    yield catalog
    catalog.close()


@pytest.fixture
def endpoint(catalog: SqlCatalog) -> Iterator[Endpoint]:
    with serve(catalog) as endpoint:
        yield endpoint


@pytest.fixture
def http(endpoint: Endpoint) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{endpoint.url}/v1/", trust_env=False) as client:
        yield client


@pytest.fixture
def rest(endpoint: Endpoint) -> RestCatalog:
    return endpoint.client()

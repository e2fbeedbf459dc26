"""A catalog whose warehouse is in a bucket, of a store with STS."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog
from support.seaweedfs import SeaweedFS

from streamlake.catalogs import kinds
from streamlake.catalogs.config import CatalogConfig
from streamlake.table.task.control import S3AccessSettings


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with SeaweedFS(tmp_path_factory.mktemp("weed"), with_role=True) as weed:
        yield weed


@pytest.fixture
def warehouse(weed: SeaweedFS) -> str:
    """bucket/prefix"""
    return weed.folder()


@pytest.fixture
def catalog(weed: SeaweedFS, warehouse: str, tmp_path: Path) -> Iterator[Catalog]:
    properties = {
        "uri": f"sqlite:///{tmp_path}/catalog.db",
        "warehouse": f"s3://{warehouse}",
        "s3.endpoint": weed.s3_endpoint,
        "s3.region": weed.region,
        "s3.access-key-id": weed.access_key,
        "s3.secret-access-key": weed.secret_key,
    }
    catalog = kinds.load(CatalogConfig("sql", "lake", properties))
    yield catalog
    catalog.close()


@pytest.fixture
def vending(weed: SeaweedFS) -> S3AccessSettings:
    return S3AccessSettings("short-lived", sts_role=weed.role, sts_endpoint=weed.s3_endpoint)

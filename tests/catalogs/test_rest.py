import socket
import time
from typing import TYPE_CHECKING

import pytest
import requests
from contracts.catalog_contract import CatalogContract
from pyiceberg.catalog import Catalog

from streamlake.catalogs import rest
from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.load import load

if TYPE_CHECKING:
    from support.seaweedfs import SeaweedFS


def config(server: "SeaweedFS") -> CatalogConfig:
    return CatalogConfig(
        "rest",
        "lake",
        {
            "uri": server.iceberg_rest_uri,
            "warehouse": server.warehouse,
            "oauth2-server-uri": f"{server.iceberg_rest_uri}/v1/oauth/tokens",
            "credential": f"{server.access_key}:{server.secret_key}",
            "s3.endpoint": server.s3_endpoint,
            "s3.access-key-id": server.access_key,
            "s3.secret-access-key": server.secret_key,
            "s3.region": server.region,
        },
    )


class TestRestCatalog(CatalogContract):
    table_name = "table{}"  # this server allows no dots and capitals

    @pytest.fixture
    def catalog(self, seaweedfs: "SeaweedFS") -> Catalog:
        return loaded(config(seaweedfs))


def loaded(config: CatalogConfig) -> Catalog:
    """The server makes its table bucket a moment after it answers."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            catalog = load(config)
            catalog.list_namespaces()
            return catalog
        except Exception:
            time.sleep(0.05)
    raise RuntimeError("the table bucket did not appear")


def test_a_catalog_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "CONNECT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(rest, "READ_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        uri = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(requests.exceptions.ReadTimeout):
            load(CatalogConfig("rest", "lake", {"uri": uri}))


def test_nothing_is_sent_twice_by_an_adapter() -> None:
    session = requests.Session()
    for adapter in session.adapters.values():
        assert adapter.max_retries.total == 0
    timed = rest.TimedAdapter(requests.adapters.HTTPAdapter())
    assert timed._inner.max_retries.total == 0

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, NoRegionError

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.files.file_io import StoreFileIO
from streamlake.catalogs.kinds import load
from streamlake.core.errors import Invalid

ANSWER = b'{"__type": "InternalServiceException", "Message": "try again"}'


class Broken(ThreadingHTTPServer):
    """Answers every request with 500, as a service in trouble does, and counts them."""

    daemon_threads = True
    requests = 0


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Broken)
        self.server.requests += 1
        self.send_response(500)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def broken() -> Iterator[Broken]:
    with Broken(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def config(endpoint: str = "http://127.0.0.1:1", **properties: str) -> CatalogConfig:
    given = {
        "warehouse": "s3://lake/w",
        "glue.endpoint": endpoint,
        "client.region": "us-east-1",
        "client.access-key-id": "key",
        "client.secret-access-key": "secret",
        **{key.replace("_", "."): value for key, value in properties.items()},
    }
    return CatalogConfig("glue", "lake", given, "lake.toml")


def test_nothing_is_sent_twice(broken: Broken) -> None:
    """A second attempt could conflict with the first one, which landed: what happened would be anybody's guess."""
    catalog = load(config(f"http://127.0.0.1:{broken.server_port}"))
    with pytest.raises(ClientError):
        catalog.list_namespaces()
    assert broken.requests == 1


def test_retries_may_be_configured(broken: Broken) -> None:
    endpoint = f"http://127.0.0.1:{broken.server_port}"
    with pytest.raises(Invalid, match=r"^lake.toml: glue.max-retries must be a whole number"):
        load(CatalogConfig("glue", "lake", {**config(endpoint).properties, "glue.max-retries": "x"}, "lake.toml"))
    catalog = load(CatalogConfig("glue", "lake", {**config(endpoint).properties, "glue.max-retries": "1"}))
    with pytest.raises(ClientError):
        catalog.list_namespaces()
    assert broken.requests == 2


def test_without_a_region_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(NoRegionError):
        load(CatalogConfig("glue", "lake", {"warehouse": "s3://lake/w"}))


def test_a_local_warehouse_survives_a_power_cut() -> None:
    catalog = load(CatalogConfig("glue", "lake", {**config().properties, "warehouse": "file:///lake"}))
    assert isinstance(catalog._load_file_io(location="file:///lake/x"), StoreFileIO)

"""The errors are those that the libraries raise, for causes that can be had without a server of the kind."""

import socket
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.schema import Schema
from support.seaweedfs import SeaweedFS

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.kinds import load
from streamlake.catalogs.trouble import remedy


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def trouble(kind: str, call: Any = None, **properties: str) -> str:
    """The remedy of what loading the catalog, or `call` on it, raises."""
    config = CatalogConfig(kind, "lake", {key.replace("__", "."): v for key, v in properties.items()}, "lake.toml")
    with pytest.raises(Exception) as raised:
        catalog = load(config)
        call(catalog)
    return remedy(config, raised.value)


def test_nobody_is_there(free_port: int) -> None:
    expected = "check uri in lake.toml, and that the catalog runs"
    assert trouble("rest", uri=f"http://127.0.0.1:{free_port}") == expected
    assert trouble("hive", uri=f"thrift://127.0.0.1:{free_port}") == expected
    database = f"postgresql://u:p@127.0.0.1:{free_port}/lake"
    assert trouble("sql", uri=database, warehouse="file:///lake") == expected


def test_aws_nobody_is_there(free_port: int) -> None:
    keys = {"client__region": "x", "client__access-key-id": "k", "client__secret-access-key": "s"}
    glue = {"warehouse": "s3://lake", "glue__endpoint": f"http://127.0.0.1:{free_port}", **keys}
    assert trouble("glue", lambda catalog: catalog.list_namespaces(), **glue) == (
        "check client.region and glue.endpoint in lake.toml, and that the catalog runs"
    )


def test_no_credentials_of_aws(free_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    expected = "check client.access-key-id and client.secret-access-key, or the variables AWS_* in lake.toml"
    arn = "arn:aws:s3tables:us-east-1:111122223333:bucket/lake"
    assert trouble("s3tables", warehouse=arn, uri=f"http://127.0.0.1:{free_port}") == expected
    glue = {"warehouse": "s3://lake", "client__region": "x", "glue__endpoint": f"http://127.0.0.1:{free_port}"}
    assert trouble("glue", lambda catalog: catalog.list_namespaces(), **glue) == expected


def test_a_bucket_that_refuses_us_or_is_not_there(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    """The catalog itself is well: its uri is no remedy."""
    known = {"s3__endpoint": seaweedfs.s3_endpoint, "s3__region": "us-east-1", "uri": f"sqlite:///{tmp_path}/c.db"}
    right = {"s3__access-key-id": seaweedfs.access_key, "s3__secret-access-key": seaweedfs.secret_key}
    wrong = {"s3__access-key-id": "who", "s3__secret-access-key": "what"}

    def make(catalog: Catalog) -> None:
        catalog.create_namespace_if_not_exists("n")
        catalog.create_table("n.t", Schema())

    expected = "check warehouse, and the keys s3.*, gcs.* or adls.* in lake.toml"
    assert trouble("sql", make, warehouse=f"s3://{seaweedfs.folder()}", **known, **wrong) == expected
    away = {**known, "s3__endpoint": "http://127.0.0.1:1"}
    assert trouble("sql", make, warehouse=f"s3://{seaweedfs.folder()}", **away, **right) == expected


def test_an_error_that_says_nothing() -> None:
    config = CatalogConfig("rest", "lake", {}, "[catalogs.lake]")
    assert remedy(config, RuntimeError("?")) == "check uri, warehouse and the credentials in [catalogs.lake]"

"""One server whose topics are produced once, and one engine after the other on its tables."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from engines.by_duckdb import attach
from engines.engine import NAMESPACE, Engine, Lake
from engines.kinds import EngineKind
from engines.topics import TOPICS, Topic, produce
from support.maven import Missing
from support.seaweedfs import SeaweedFS
from support.server import Server
from support.server_fixtures import *  # noqa: F403

from streamlake.lake import sql


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All queries of an engine one after the other, as they stand in the list."""
    places = [place for place, item in enumerate(items) if kind_of(item)]
    order = list(dict.fromkeys(kind_of(items[place]) for place in places))
    of_engines = sorted((items[place] for place in places), key=lambda item: order.index(kind_of(item)))
    for place, item in zip(places, of_engines, strict=True):
        items[place] = item


def kind_of(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    kind = callspec.params.get("kind") if callspec else None
    return kind.title if isinstance(kind, EngineKind) else ""


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """On the local disk."""
    with produced(Lake(Server(tmp_path_factory.mktemp("engines")))) as lake:
        yield lake


@pytest.fixture(scope="session")
def lake_in_bucket(tmp_path_factory: pytest.TempPathFactory, seaweedfs: SeaweedFS) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp("engines-bucket")
    file = folder / "catalog.toml"
    file.write_text(catalog_in_bucket(folder, seaweedfs))
    with produced(Lake(Server(folder / "data", f'[tables]\ncatalog = "{file}"\n'), seaweedfs)) as lake:
        yield lake


def catalog_in_bucket(folder: Path, bucket: SeaweedFS) -> str:
    properties = {
        "uri": f"sqlite:///{folder / 'catalog.db'}",
        "warehouse": f"s3://{bucket.bucket()}/warehouse",
        "s3.endpoint": bucket.s3_endpoint,
        "s3.access-key-id": bucket.access_key,
        "s3.secret-access-key": bucket.secret_key,
        "s3.region": bucket.region,
    }
    lines = (f'"{key}" = "{value}"\n' for key, value in properties.items())
    return f'kind = "sql"\nname = "streamlake"\n[properties]\n{"".join(lines)}'


@contextmanager
def produced(lake: Lake) -> Iterator[Lake]:
    lake.server.start()
    try:
        for topic in TOPICS:
            produce(lake.server, topic)
            delete(lake, topic)
        yield lake
    finally:
        code = lake.server.stop()
    assert code == 0, lake.server.log[-3000:]


def delete(lake: Lake, topic: Topic) -> None:
    """By DuckDB, which writes files of the positions of deleted rows."""
    if not topic.deleted:
        return
    connection = sql.connect()
    attach(connection, lake)
    gone = ", ".join(map(str, topic.deleted))
    connection.execute(f'DELETE FROM lake."{NAMESPACE}"."{topic.name}" WHERE n IN ({gone})')
    connection.close()


@pytest.fixture(scope="session")
def engine(kind: EngineKind, request: pytest.FixtureRequest) -> Iterator[Engine]:
    try:
        started = kind.start(request.getfixturevalue("lake_in_bucket" if kind.in_bucket else "lake"))
    except Missing as missing:
        pytest.skip(str(missing))
    yield started
    started.stop()

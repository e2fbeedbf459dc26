from pathlib import Path

import pytest

from streamlake import config
from streamlake.broker.catalogs import catalogs_of
from streamlake.core.errors import Invalid

LAKE = {"kind": "rest", "properties": {"uri": "http://127.0.0.1:1"}}


def test_the_catalog_beside_the_metadata_is_always_there(tmp_path: Path) -> None:
    loaded = config.load(None, {}, {"storage": {"data_dir": tmp_path}, "catalogs": {"lake": LAKE}})
    found = catalogs_of(loaded, {})
    assert (found.default, set(found.by_name)) == ("sql", {"sql", "lake"})
    assert found["sql"].properties["warehouse"] == f"file://{tmp_path}/warehouse"


def test_beside_metadata_on_a_server(tmp_path: Path) -> None:
    storage = {"metadata_url": "postgresql://u:p@db/meta", "url": "s3://lake/x"}
    loaded = config.load(None, {}, {"storage": storage, "s3": {"endpoint": "http://s3", "access_key": "k"}})
    assert catalogs_of(loaded, {})[""].properties == {
        "uri": "postgresql+psycopg://u:p@db/meta",
        "warehouse": "s3://lake/x/warehouse",
        "s3.endpoint": "http://s3",
        "s3.access-key-id": "k",
    }


def test_a_server_without_tables_looks_at_no_catalog() -> None:
    loaded = config.load(None, {}, {"tables": {"enabled": False, "catalog": "nowhere"}})
    assert set(catalogs_of(loaded, {}).by_name) == {"sql"}
    with pytest.raises(Invalid, match=r"tables.catalog is 'nowhere'"):
        catalogs_of(config.load(None, {}, {"tables": {"catalog": "nowhere"}}), {})

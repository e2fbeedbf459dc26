"""The places that a configuration stands for, and what a real machine opens there."""

from pathlib import Path
from typing import Any

import pytest

from streamlake import config
from streamlake.broker.machine import RealMachine, metadata_url, store_url, wal_uri
from streamlake.config import S3, Config
from streamlake.core.errors import Invalid
from streamlake.s3stream.store.bucket import S3Store
from streamlake.s3stream.store.local import LocalStore


def of(**storage: Any) -> Config:
    return config.load(None, {}, {"storage": {"data_dir": Path("/data")} | storage})


def test_without_a_word_all_is_in_the_data_directory() -> None:
    found = of()
    assert metadata_url(found) == "sqlite:////data/metadata.db"
    assert store_url(found) == "file:///data/objects"
    assert (str(wal_uri(found)), wal_uri(found).place) == ("file", "/data/wal")


def test_with_metadata_elsewhere_the_wal_goes_to_the_store() -> None:
    found = of(url="s3://bucket/lake", metadata_url="postgresql://host/streamlake")
    assert metadata_url(found) == "postgresql://host/streamlake"
    assert (str(wal_uri(found)), wal_uri(found).place) == ("object", "s3://bucket/lake")
    assert str(wal_uri(of(wal="s3://fast", metadata_url="postgresql://host/db"))) == "object+s3://fast"
    assert wal_uri(of(wal="object")).place == "file:///data/objects"


def test_a_wal_that_is_none() -> None:
    with pytest.raises(Invalid, match="'tape' is not a valid WAL"):
        wal_uri(of(wal="tape"))


async def test_what_it_opens(tmp_path: Path) -> None:
    machine = RealMachine(S3(endpoint="http://127.0.0.1:1", region="x", access_key="a", secret_key="b"))
    try:
        local = await machine.open_store(f"file://{tmp_path}/objects")
        assert isinstance(local, LocalStore)
        await local.put("key", [b"value"])
        assert isinstance(await machine.open_store("s3://bucket/prefix"), S3Store)
        with pytest.raises(Invalid):
            await machine.open_store("ftp://bucket")
        database = await machine.open_metadata(f"sqlite:///{tmp_path}/metadata.db")
        await database.close()
        assert machine.executor("one") is machine.executor("one") is not machine.executor("another")
    finally:
        machine.close()

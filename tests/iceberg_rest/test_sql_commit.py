"""Commits in one SQL transaction: races, losses, and outcomes that nobody knows."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, TableAlreadyExistsError
from pyiceberg.table.update import AssertCreate, AssertTableUUID, SetPropertiesUpdate
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from support.postgres import Postgres, missing

from streamlake.catalogs import kinds
from streamlake.catalogs.config import beside_metadata, embedded
from streamlake.core.errors import Unavailable
from streamlake.iceberg_rest import sql_commit
from streamlake.iceberg_rest.sql_commit import Change, commit

COLUMNS = pa.schema([("x", pa.int64())])


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    if reason := missing():
        pytest.skip(reason)
    with Postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlCatalog]:
    config = embedded(tmp_path, None)
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        config = beside_metadata(server.url(server.database()), tmp_path, None, {})
    catalog = kinds.load(config)
    assert isinstance(catalog, SqlCatalog)
    yield catalog
    catalog.close()


@pytest.fixture(autouse=True)
def _tables(catalog: SqlCatalog) -> None:
    catalog.create_namespace("a")
    for name in "tu":
        catalog.create_table(f"a.{name}", COLUMNS)


def setting(name: str, key: str, *requirements: Any) -> Change:
    return Change(("a", name), requirements, (SetPropertiesUpdate(updates={key: "1"}),), lambda _: None)


def keys(catalog: SqlCatalog, name: str) -> list[str]:
    return sorted(catalog.load_table(f"a.{name}").properties)


def metadata_files(catalog: SqlCatalog, name: str) -> set[str]:
    place = Path(catalog.load_table(f"a.{name}").location().removeprefix("file://")) / "metadata"
    return {path.name for path in place.glob("*.json")}


def test_writers_at_the_same_time_all_land(catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them requires anything of the others."""
    monkeypatch.setattr(sql_commit, "ATTEMPTS_MAX", 1000)
    changes = [[setting("t", f"k{n}"), setting("u", f"k{n}")] for n in range(6)]
    threads = [threading.Thread(target=commit, args=(catalog, both)) for both in changes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert keys(catalog, "t") == keys(catalog, "u") == [f"k{n}" for n in range(6)]


def interfere(monkeypatch: pytest.MonkeyPatch, catalog: SqlCatalog, name: str, times: int) -> list[int]:
    """Another writer commits to a table after a change was made for it, `times` times."""
    swap, done = sql_commit._swap, []

    def late(catalog: SqlCatalog, changed: Any) -> None:
        if len(done) < times:
            done.append(1)
            with catalog.load_table(f"a.{name}").transaction() as other:
                other.set_properties({f"other{len(done)}": "1"})
        swap(catalog, changed)

    monkeypatch.setattr(sql_commit, "_swap", late)
    return done


def test_one_that_loses_a_race_is_made_anew(catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    before = metadata_files(catalog, "t")
    interfere(monkeypatch, catalog, "u", times=2)
    commit(catalog, [setting("t", "k"), setting("u", "k")])
    assert keys(catalog, "t") == ["k"] and keys(catalog, "u") == ["k", "other1", "other2"]
    assert len(metadata_files(catalog, "t") - before) == 1, "what lost left files that no row names"


def test_its_requirements_hold_for_the_winners_table_too(catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid = catalog.load_table("a.u").metadata.table_uuid
    swap = sql_commit._swap

    def replaced(catalog: SqlCatalog, changed: Any) -> None:
        monkeypatch.setattr(sql_commit, "_swap", swap)
        catalog.drop_table("a.u")
        catalog.create_table("a.u", COLUMNS)
        swap(catalog, changed)

    monkeypatch.setattr(sql_commit, "_swap", replaced)
    with pytest.raises(CommitFailedException, match="UUID"):
        commit(catalog, [setting("t", "k"), setting("u", "k", AssertTableUUID(uuid=uuid))])
    assert keys(catalog, "t") == keys(catalog, "u") == []


def test_one_that_always_loses_gives_up(catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    done = interfere(monkeypatch, catalog, "t", times=100)
    with pytest.raises(CommitFailedException, match="5 times"):
        commit(catalog, [setting("t", "k")])
    assert len(done) == 5 and "k" not in keys(catalog, "t")


def test_two_that_create_one_table(catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = catalog.create_table_transaction("a.v", COLUMNS)
    creation = Change(("a", "v"), (AssertCreate(),), staged._updates, lambda _: None)
    swap = sql_commit._swap

    def late(catalog: SqlCatalog, changed: Any) -> None:
        catalog.create_table("a.v", COLUMNS)
        swap(catalog, changed)

    monkeypatch.setattr(sql_commit, "_swap", late)
    with pytest.raises(TableAlreadyExistsError):
        commit(catalog, [setting("t", "k"), creation])
    assert keys(catalog, "t") == []


def test_a_check_may_refuse(catalog: SqlCatalog) -> None:
    def refuse(_: Any) -> None:
        raise ValueError("not this one")

    refused = Change(("a", "u"), (), (SetPropertiesUpdate(updates={"k": "1"}),), refuse)
    with pytest.raises(ValueError, match="not this one"):
        commit(catalog, [setting("t", "k"), refused])
    assert keys(catalog, "t") == []


@pytest.mark.parametrize("landed", [True, False])
def test_a_commit_without_an_answer_keeps_its_files(
    catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch, landed: bool
) -> None:
    """If it landed, the rows name them."""
    before, real = metadata_files(catalog, "t"), Session.commit

    def silent(session: Session) -> None:
        if landed:
            real(session)
        raise OperationalError("COMMIT", {}, Exception("connection lost"))

    monkeypatch.setattr(Session, "commit", silent)
    with pytest.raises(CommitStateUnknownException):
        commit(catalog, [setting("t", "k"), setting("u", "k")])
    monkeypatch.undo()
    assert keys(catalog, "t") == keys(catalog, "u") == (["k"] if landed else [])
    assert len(metadata_files(catalog, "t") - before) == 1


def test_a_database_that_fails_before_the_end_has_done_nothing(catalog: SqlCatalog) -> None:
    before = metadata_files(catalog, "t")

    def fail(*_: Any) -> None:
        raise OperationalError("UPDATE", {}, Exception("locked"))

    event.listen(catalog.engine, "before_cursor_execute", fail)
    with pytest.raises(Unavailable, match="nothing was committed"):
        commit(catalog, [setting("t", "k")])
    event.remove(catalog.engine, "before_cursor_execute", fail)
    assert keys(catalog, "t") == [] and metadata_files(catalog, "t") == before


def test_a_warehouse_that_fails_leaves_the_tables_as_they_were(
    catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = catalog._write_metadata

    def full(metadata: Any, io: Any, location: str) -> None:
        if "/u/" in location:
            raise OSError("no space left on device")
        write(metadata, io, location)

    monkeypatch.setattr(catalog, "_write_metadata", full)
    before = metadata_files(catalog, "t")
    with pytest.raises(Unavailable, match="nothing was committed"):
        commit(catalog, [setting("t", "k"), setting("u", "k")])
    assert keys(catalog, "t") == [] and metadata_files(catalog, "t") == before

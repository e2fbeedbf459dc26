"""Metadata stays small for ever, by counts: time is never measured here."""

from pathlib import Path

import pytest
from pyarrow import fs
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.memory import InMemoryCatalog
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField
from support.seaweedfs import SeaweedFS
from support.table_world import Clock, Executor, World, good

from streamlake.catalogs.capabilities import Capabilities
from streamlake.catalogs.config import CatalogConfig, embedded
from streamlake.catalogs.kinds import load
from streamlake.core.ids import Ids
from streamlake.table.commit.committer import Committer
from streamlake.table.commit.expiry import GC_ENABLED
from streamlake.table.commit.iceberg import Change, IcebergTable
from streamlake.table.commit.machine import Owner
from streamlake.table.upkeep import maintenance
from streamlake.table.upkeep.maintenance import MERGE_AT, ORPHAN_AGE_MS, Maintenance

COMMITS = 300


def metadata_files(world: World) -> dict[str, int]:
    names = [f.rpartition("/")[2] for f in world.files if "/orders/metadata/" in f]
    kinds = {"json": ".metadata.json", "list": "snap-", "manifest": "-m"}
    return {kind: sum(mark in name for name in names) for kind, mark in kinds.items()}


@pytest.mark.slow
async def test_three_hundred_commits_leave_bounded_metadata() -> None:
    world = World()
    life = await world.opened()
    upkeep = Maintenance(life.table.main, world.clock, grace_ms=0)
    most = 0
    for n in range(COMMITS):
        world.log.produce(0, good([n]))
        assert await life.round()
        main = life.table.main
        upkeep.observe(main.table)
        await upkeep.merge()
        upkeep.observe(main.table)
        if n % 10 == 9:
            await upkeep.sweep(main.table)
            files = metadata_files(world)
            most = max(most, len(world.load().current_snapshot().manifests(main.table.io)))
            assert files["json"] <= 22, files  # current, ten in the log, and what fell out of it since the last sweep
            assert files["list"] <= 31, files  # twenty snapshots, and what expired since the last sweep
            assert files["manifest"] <= 2 * MERGE_AT + 31, files
            assert len(world.load().metadata.snapshots) == min(20, n + 2 + upkeep.merges)
    assert upkeep.merges == COMMITS // MERGE_AT
    assert most <= MERGE_AT + COMMITS // MERGE_AT
    world.check()


async def test_a_reader_of_an_expired_snapshot_has_the_grace_to_finish() -> None:
    world = World()
    life = await world.opened()
    upkeep = Maintenance(life.table.main, world.clock, grace_ms=60_000)
    for n in range(30):
        world.log.produce(0, good([n]))
        await life.round()
        upkeep.observe(life.table.main.table)
    before = dict(world.files)
    await upkeep.sweep(life.table.main.table)
    assert world.files == before
    world.clock.ms += 60_000
    await upkeep.sweep(life.table.main.table)
    assert upkeep.files_removed > 0
    assert set(before) - set(world.files)
    world.check()


async def test_nothing_that_a_branch_or_tag_needs_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "MERGE_AT", 10)
    world = World()
    life = await world.opened()
    upkeep = Maintenance(life.table.main, world.clock, grace_ms=0)
    await life.rounds(5)
    head = world.load().current_snapshot().snapshot_id
    world.load().manage_snapshots().create_branch(head, "audit").commit()
    for n in range(5, 45):
        world.log.produce(0, good([n]))
        await life.round()
        main = life.table.main
        await upkeep.merge()
        upkeep.observe(main.table)
        await upkeep.sweep(main.table)
    assert upkeep.merges == 4
    assert world.load().scan(snapshot_id=head).to_arrow().num_rows == 5
    world.check()


async def test_nothing_is_removed_of_a_table_that_says_so(tmp_path: Path) -> None:
    """`gc.enabled = false`: other tables use the files too, as branches of Nessie do, whose tables all say it."""
    lake = Lake(tmp_path)
    await lake.open(**{GC_ENABLED: "false"})
    upkeep = Maintenance(lake.committer, lake.clock, grace_ms=0)
    upkeep.observe(lake.committer.table)
    orphan = lake.put(f"metadata/snap-77-1-{lake.clock.ms - ORPHAN_AGE_MS - 1:011x}-{'0' * 32}.avro")
    expired = lake.committer.table.metadata.snapshots[0].manifest_list
    for _ in range(2):
        assert await lake.committer.commit(Change(lake.committer.progress.advanced(1, {}, {})))
    table = lake.committer.table
    only_the_head = {"snapshots": [table.metadata.current_snapshot()]}  # as in Nessie after each commit
    table.metadata = table.metadata.model_copy(update=only_the_head)
    upkeep.observe(table)
    assert expired in {garbage.location for garbage in upkeep.due}
    before = files_of(tmp_path)
    await upkeep.sweep(table)
    await upkeep.remove_orphans(table)
    assert (files_of(tmp_path), upkeep.due) == (before, [])
    assert orphan in before


async def test_a_file_that_is_gone_already_does_no_harm() -> None:
    world = World()
    life = await world.opened()
    upkeep = Maintenance(life.table.main, world.clock, grace_ms=0)
    for n in range(30):
        world.log.produce(0, good([n]))
        await life.round()
        upkeep.observe(life.table.main.table)
    live = {s.manifest_list for s in world.load().metadata.snapshots}
    for name in [f for f in world.files if "/orders/metadata/snap-" in f and f not in live]:
        del world.files[name]
    await upkeep.sweep(life.table.main.table)
    world.check()


async def test_a_merge_that_loses_against_a_foreign_commit_leaves_the_table_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(maintenance, "MERGE_AT", 10)
    world = World()
    life = await world.opened()
    await life.rounds(10)
    main = life.table.main
    table = world.load()
    table.overwrite(table.scan().to_arrow())
    with pytest.raises(Exception, match="has changed"):
        await Maintenance(main, world.clock).merge()
    world.log.produce(0, good([1]))
    await life.round()
    world.check()


class TwoStores(PyArrowFileIO):
    """A folder for each scheme, so that a path means another file in each."""

    def _initialize_fs(self, scheme: str, netloc: str | None = None) -> fs.FileSystem:
        return fs.SubTreeFileSystem(f"{self.properties['root']}/{scheme}", fs.LocalFileSystem())


async def test_orphans_are_removed_where_they_lie(tmp_path: Path) -> None:
    """Data and metadata may lie in different stores."""
    metadata, data = tmp_path / "gs/lake/t/metadata", tmp_path / "s3/lake/data"
    metadata.mkdir(parents=True)
    data.mkdir(parents=True)
    io = {"py-io-impl": f"{__name__}.TwoStores", "root": str(tmp_path)}
    catalog = InMemoryCatalog("lake", warehouse="gs://lake", **io)
    catalog.create_namespace("ns")
    paths = {"write.data.path": "s3://lake/data", "write.metadata.path": "gs://lake/t/metadata"}
    table = catalog.create_table(("ns", "t"), Schema(NestedField(1, "id", LongType())), properties=paths)
    clock = Clock()
    iceberg = IcebergTable(catalog, ("ns", "t"), 1, Executor(), clock, Ids(1), Capabilities())
    committer = Committer(iceberg, Owner("c", "t", "i", 1), False, Ids(1))
    old = f"{clock.ms - ORPHAN_AGE_MS - 1:011x}-{'0' * 32}"
    orphans = [data / f"streamlake-{table.metadata.table_uuid}-1-{old}-0.parquet", metadata / f"snap-77-1-{old}.avro"]
    for path in orphans:
        path.write_bytes(b"x")
    await Maintenance(committer, clock).remove_orphans(table)
    assert not any(path.exists() for path in orphans)
    assert list(metadata.iterdir())  # of the table itself


class Lake:
    """A table in a real store, whose files can be listed: in a directory, unless a configuration says otherwise."""

    def __init__(self, path: Path, config: CatalogConfig | None = None) -> None:
        self.path = path
        self.clock = Clock()
        self.catalog: Catalog = load(config or embedded(path, None))
        self.handle = IcebergTable(self.catalog, ("default", "t"), 1, Executor(), self.clock, Ids(1), Capabilities())
        self.committer = Committer(self.handle, Owner("c", "t", "i", 1), False, Ids(1))

    async def open(self, **properties: str) -> None:
        await self.handle.create(Schema(NestedField(1, "id", LongType())), properties=properties)
        await self.committer.load()
        await self.committer.claim()

    def put(self, name: str) -> Path:
        path = self.path / "warehouse" / "default" / "t" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        return path


def files_of(path: Path) -> set[Path]:
    return {file for file in (path / "warehouse").rglob("*") if file.is_file()}


async def test_orphans_go_by_age_and_by_our_names(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    await lake.open()
    table = lake.committer.table
    uuid, hex32 = table.metadata.table_uuid, "0" * 32
    old, new = (f"{at:011x}-{hex32}" for at in (lake.clock.ms - ORPHAN_AGE_MS - 1, lake.clock.ms))
    gone = [
        lake.put(f"data/streamlake-{uuid}-1-{old}-0.parquet"),
        lake.put(f"data/day=3/streamlake-{uuid}-1-{old}-7.parquet"),
        lake.put(f"data/streamlake-{uuid}-1-{old}-0.parquet.tmp"),
        lake.put(f"metadata/streamlake-1-{old}-m0.avro"),
        lake.put(f"metadata/snap-77-1-{old}.avro"),
    ]
    stays = [
        lake.put(f"data/streamlake-{uuid}-1-{new}-0.parquet"),
        lake.put(f"data/streamlake-{'1' * 8}-1111-1111-1111-{'1' * 12}-1-{old}-0.parquet"),  # of another table
        lake.put("data/00000-0-foreign.parquet"),
        lake.put("metadata/snap-1-foreign.avro"),
        lake.put("metadata/00000-11111111-1111-1111-1111-111111111111.metadata.json"),  # versions are few yet
    ]
    needed = files_of(tmp_path) - {*gone}
    lake.clock.ms += 1
    await Maintenance(lake.committer, lake.clock).remove_orphans(table)
    assert not [p for p in gone if p.exists()]
    assert [p for p in (*stays, *needed) if not p.exists()] == []


async def test_orphans_in_a_bucket(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    properties = {
        "uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": f"s3://{seaweedfs.folder()}",
        "s3.endpoint": seaweedfs.s3_endpoint, "s3.region": seaweedfs.region, "s3.access-key-id": seaweedfs.access_key,
        "s3.secret-access-key": seaweedfs.secret_key,
    }  # fmt: skip
    lake = Lake(tmp_path, CatalogConfig("sql", "lake", properties))
    await lake.open()
    table = lake.committer.table
    old, new = (f"{at:011x}-{'0' * 32}" for at in (lake.clock.ms - ORPHAN_AGE_MS - 1, lake.clock.ms))
    names = [f"metadata/snap-77-1-{age}.avro" for age in (old, new)]
    orphan, young = (f"{table.location()}/{name}" for name in names)
    for location in (orphan, young):
        with table.io.new_output(location).create() as stream:
            stream.write(b"x")
    before = set(table.io.list_files(table.location()))
    lake.clock.ms += 1
    await Maintenance(lake.committer, lake.clock).remove_orphans(table)
    assert set(table.io.list_files(table.location())) == before - {orphan}


async def test_what_the_table_needs_is_no_orphan_however_old(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    await lake.open()
    lake.clock.ms += 10 * ORPHAN_AGE_MS
    files = files_of(tmp_path)
    await Maintenance(lake.committer, lake.clock).remove_orphans(lake.committer.table)
    assert files_of(tmp_path) == files

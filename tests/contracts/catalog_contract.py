"""What the committer counts on in a catalog; every kind that we support runs it.

Subclass with a fixture `catalog`; each test makes a table of its own in namespace `contract`.
"""

import itertools
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.types import LongType, NestedField, StringType, StructType

from streamlake.catalogs.capabilities import Capabilities
from streamlake.cluster.config.table import partition_fields
from streamlake.core.clock import SystemClock
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor
from streamlake.table.commit import expiry
from streamlake.table.commit.committer import Committer
from streamlake.table.commit.iceberg import Change, IcebergTable
from streamlake.table.commit.machine import Owner
from streamlake.table.commit.progress import PROGRESS, TAG, find
from streamlake.table.formats.source_schema import VALUE, SourceColumn, source_field
from streamlake.table.rows import pipeline
from streamlake.table.rows.evolve import CurrentTable, evolve
from streamlake.table.rows.partition import PENDING, partition_spec, partitioning, properties_of, unpartitioned
from streamlake.table.task.topic_table import change_of, paths_of

NAMESPACE = "contract"
SCHEMA = Schema(
    NestedField(1, "id", LongType()),
    NestedField(2, "s", StructType(NestedField(4, "inner", LongType()))),
    NestedField(3, "name", StringType()),
)
OWNER = Owner("cluster", "topic", "topic-id", 1)
numbers = itertools.count(1)


class CatalogContract:
    table_name = "Table{}.with-dots"  # as topics may be called
    capabilities = Capabilities()

    @pytest.fixture
    def catalog(self) -> Catalog:
        raise NotImplementedError

    @pytest.fixture
    def handle(self, catalog: Catalog) -> IcebergTable:
        return self.new_handle(catalog)

    def new_handle(self, catalog: Catalog, name: str | None = None, epoch: int = 1) -> IcebergTable:
        name = name or self.table_name.format(next(numbers))
        identifier = (NAMESPACE, name)
        return IcebergTable(catalog, identifier, epoch, InlineExecutor(), SystemClock(), Ids(), self.capabilities)

    async def opened(self, handle: IcebergTable, epoch: int = 1) -> Committer:
        committer = Committer(handle, Owner("cluster", "topic", "topic-id", epoch), False, Ids())
        await committer.load()
        return committer

    async def test_create_makes_the_namespace_and_a_table_of_version_2(
        self, handle: IcebergTable, catalog: Catalog
    ) -> None:
        assert await handle.load() is None
        await handle.create(SCHEMA)
        table = await handle.load()
        assert table is not None
        # The ids are the catalog's choice (level by level, or depth first): who writes binds to what it finds.
        assert {n: str(table.schema().find_type(n)) for n in ("id", "s.inner", "name")} == {
            "id": "long", "s.inner": "long", "name": "string",
        }  # fmt: skip
        assert table.metadata.format_version == 2
        assert table.properties["write.metadata.previous-versions-max"] == "10"
        before = table.metadata.table_uuid
        await handle.create(SCHEMA)  # no error, and no new table
        assert (await handle.load()).metadata.table_uuid == before

    async def test_rows_progress_tag_and_property_land_together(self, handle: IcebergTable) -> None:
        await handle.create(SCHEMA)
        committer = await self.opened(handle)
        assert await self.append(committer, [1, 2, 3])
        table = await handle.load()
        assert ids(table) == [1, 2, 3]
        head = table.metadata.current_snapshot()
        tags = {name: ref.snapshot_id for name, ref in table.metadata.refs.items() if name != MAIN_BRANCH}
        assert tags == ({TAG: head.snapshot_id} if self.capabilities.keeps_tags else {})
        assert PROGRESS in head.summary.additional_properties
        assert head.summary.additional_properties["total-records"] == "3"
        assert PROGRESS in table.properties
        assert find(table.metadata) == committer.progress

    async def test_a_stale_commit_is_refused_and_nothing_of_it_lands(self, handle: IcebergTable) -> None:
        await handle.create(SCHEMA)
        assert await self.append(await self.opened(handle), [1])
        await self.check_stale_commit(handle, [1])

    async def test_a_stale_first_commit_is_refused(self, handle: IcebergTable) -> None:
        """For a table as it was without a snapshot."""
        await handle.create(SCHEMA)
        await self.check_stale_commit(handle, [])

    async def check_stale_commit(self, handle: IcebergTable, before: list[int]) -> None:
        stale = await self.opened(handle)
        assert await self.append(await self.opened(handle), [2])
        head = (await handle.load()).metadata.current_snapshot_id
        with pytest.raises(CommitFailedException):
            await handle.put_and_commit(stale.table, self.change(stale, [3]))
        after = await handle.load()
        assert ids(after) == [*before, 2]
        assert after.metadata.current_snapshot_id == head

    async def test_a_commit_to_a_table_created_again_is_refused(self, handle: IcebergTable, catalog: Catalog) -> None:
        await handle.create(SCHEMA)
        old = await self.opened(handle)
        catalog.drop_table(handle.identifier)
        await handle.create(SCHEMA)
        with pytest.raises(CommitFailedException):
            await handle.put_and_commit(old.table, self.change(old, [1]))
        assert ids(await handle.load()) == []

    async def test_a_commit_to_a_dropped_table_is_refused(self, handle: IcebergTable, catalog: Catalog) -> None:
        await handle.create(SCHEMA)
        committer = await self.opened(handle)
        catalog.drop_table(handle.identifier)
        with pytest.raises(Exception, match=r"(?i)table"):  # catalogs agree on no error for it: unknown, so look again
            await handle.put_and_commit(committer.table, self.change(committer, [1]))
        assert await handle.load() is None

    async def test_expiry_in_the_commit(self, handle: IcebergTable, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(expiry, "KEEP_DEFAULT", 3)
        await handle.create(SCHEMA)
        committer = await self.opened(handle)
        for n in range(6):
            assert await self.append(committer, [n])
        table = await handle.load()
        assert len(table.metadata.snapshots) == (3 if self.capabilities.keeps_history else 1)
        assert ids(table) == list(range(6))

    async def test_a_schema_change_and_rows_in_one_commit(self, handle: IcebergTable) -> None:
        await handle.create(SCHEMA)
        committer = await self.opened(handle)
        assert await self.append(committer, [1])
        metadata = committer.table.metadata
        current = CurrentTable(metadata.schemas, metadata.current_schema_id, metadata.last_column_id, {})
        evolved = evolve(current, [[SourceColumn(VALUE, source_field("added", LongType()))]])
        change = self.change(committer, [2], evolved.schema)
        change = replace(
            change, schema=evolved.schema, updates=evolved.updates, requirements=evolved.requirements
        )  # fmt: skip
        assert await committer.commit(change)
        table = await handle.load()
        assert table.schema().find_field("added").field_id == 5
        assert table.metadata.current_snapshot().schema_id == table.schema().schema_id
        assert ids(table) == [1, 2]
        stale = await self.opened(handle)
        with pytest.raises(CommitFailedException):
            await handle.put_and_commit(stale.table, change)

    async def test_a_partition_field_with_its_column_and_rows_in_one_commit(self, handle: IcebergTable) -> None:
        await handle.create(SCHEMA, properties={PENDING: "bucket(added, 4)"})
        committer = await self.opened(handle)
        assert await self.append(committer, [1])
        metadata = committer.table.metadata
        current = CurrentTable(metadata.schemas, metadata.current_schema_id, metadata.last_column_id, {})
        evolved = evolve(current, [[SourceColumn(VALUE, source_field("added", LongType()))]])
        chosen = partitioning(metadata, evolved.schema, ())
        change = replace(
            self.change(committer, [2, 3], evolved.schema, chosen.spec),
            schema=evolved.schema,
            spec=chosen.spec,
            updates=(*evolved.updates, *chosen.updates),
            requirements=(*evolved.requirements, *chosen.requirements),
        )
        assert await committer.commit(change)
        table = await handle.load()
        assert [field.name for field in table.spec().fields] == ["added_bucket_4"]
        assert table.spec().spec_id == chosen.spec.spec_id
        assert PENDING not in table.properties
        assert await self.append(committer, [4])
        table = await handle.load()
        assert ids(table) == [1, 2, 3, 4]
        assert sorted({task.file.spec_id for task in table.scan().plan_files()}) == [0, chosen.spec.spec_id]

    async def test_another_spec_for_a_config_that_changed(self, handle: IcebergTable) -> None:
        first, second = partition_fields("id"), partition_fields("bucket(id, 4)")
        spec, pending = partition_spec(SCHEMA, first)
        await handle.create(SCHEMA, spec, properties_of(first, pending))
        committer = await self.opened(handle)
        assert await self.append(committer, [1, 2])
        for by, transforms in ((second, ["bucket[4]"]), ((), []), (first, ["identity"])):
            metadata = committer.table.metadata
            chosen = partitioning(metadata, metadata.schema(), by)
            change = replace(
                self.change(committer, [3, 4], spec=chosen.spec),
                spec=chosen.spec,
                updates=chosen.updates,
                requirements=chosen.requirements,
            )
            assert await committer.commit(change)
            table = await handle.load()
            assert [str(field.transform) for field in table.spec().fields] == transforms
            assert table.spec().spec_id == chosen.spec.spec_id
        assert ids(table) == [1, 2, 3, 3, 3, 4, 4, 4]
        files = [task.file.spec_id for task in table.scan().plan_files()]
        assert sorted(set(files)) == [0, 1, 2] and files.count(0) == 4  # the first spec again: not a fourth

    async def test_files_without_partitions_in_a_table_with_them(self, handle: IcebergTable) -> None:
        spec, _ = partition_spec(SCHEMA, partition_fields("id"))
        await handle.create(SCHEMA, spec)
        committer = await self.opened(handle)
        assert await self.append(committer, [1, 2])
        chosen = unpartitioned(committer.table.metadata)
        change = replace(
            self.change(committer, [3, 4], spec=chosen.spec),
            spec=chosen.spec,
            updates=chosen.updates,
            requirements=chosen.requirements,
        )
        assert await committer.commit(change)
        assert await self.append(committer, [5])
        table = await handle.load()
        assert not table.spec().is_unpartitioned()
        assert [ids(table, f"id = {n}") for n in range(1, 6)] == [[1], [2], [3], [4], [5]]

    async def test_a_claim_is_an_empty_snapshot_that_fences(self, handle: IcebergTable, catalog: Catalog) -> None:
        await handle.create(SCHEMA)
        old = await self.opened(handle)
        assert await self.append(old, [1])
        successor = await self.opened(self.new_handle(catalog, handle.identifier[1], epoch=2), epoch=2)
        assert await successor.claim()
        with pytest.raises(CommitFailedException):
            await handle.put_and_commit(old.table, self.change(old, [2]))
        assert ids(await handle.load()) == [1]

    # -- helpers ------------------------------------------------------------------------------------------------------

    def change(
        self,
        committer: Committer,
        values: list[int],
        schema: Schema | None = None,
        spec: PartitionSpec | None = None,
    ) -> Change:
        table = committer.table
        schema = schema or table.schema()
        arrow = pipeline.table_schema(schema)
        columns = [pa.array(values, pa.int64()) if f.name == "id" else pa.nulls(len(values), f.type) for f in arrow]
        rows = pa.Table.from_arrays(columns, schema=arrow)
        files = pipeline.write(rows, schema, spec or table.spec(), paths_of(committer.handle, table), table.properties)
        return change_of(files, committer.progress.advanced(committer.progress.epoch, {0: max(values) + 1}, {}))

    async def append(self, committer: Committer, values: list[int]) -> bool:
        return await committer.commit(self.change(committer, values))


def ids(table: Table | Any, row_filter: str = "True") -> list[int]:
    return sorted(table.scan(row_filter).to_arrow()["id"].to_pylist())

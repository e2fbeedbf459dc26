"""What the committer counts on in a catalog, on every kind; and what kinds do in their own ways."""

from collections.abc import Callable

import pytest
from contracts.catalog_contract import SCHEMA, CatalogContract, numbers
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, TableAlreadyExistsError
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField, StructType
from support.catalog_kinds import NAME, REFUSED, CatalogKind, RunningCatalog

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.kinds import capabilities_of
from streamlake.catalogs.trial import Trial
from streamlake.table.commit.iceberg import IcebergTable

pytestmark = pytest.mark.whole

Saw = Callable[[str], None]
LONG_TYPE = StructType(
    *(NestedField(n, f"a_field_whose_name_has_forty_characters{n:04}", LongType()) for n in range(3000))
)


class TestCatalogContract(CatalogContract):
    @pytest.fixture
    def catalog(self, running: RunningCatalog, kind: CatalogKind) -> Catalog:
        catalog = running.connect()
        self.table_name = kind.table_name
        self.capabilities = capabilities_of(running.kind, catalog)
        return catalog

    async def test_a_stale_first_commit_is_refused(self, handle: IcebergTable, kind: CatalogKind, saw: Saw) -> None:
        if kind.fences_first_commit:
            await super().test_a_stale_first_commit_is_refused(handle)
            return
        await handle.create(SCHEMA)
        with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
            await self.check_stale_commit(handle, [])
        saw("it lands")

    def test_what_our_capabilities_say_is_so(
        self, running: RunningCatalog, catalog: Catalog, kind: CatalogKind
    ) -> None:
        """They may promise less: not every server of a kind is this one."""
        said = capabilities_of(running.kind, catalog)
        assert said.folds_case == kind.folds_case
        assert kind.nested_namespaces or not said.nested_namespaces
        assert kind.create_of_existing_is_refused or not said.create_is_conditional
        assert (said.keeps_tags, said.keeps_history) == (kind.keeps_tags, kind.keeps_history)

    async def test_what_a_create_of_an_existing_table_answers(
        self, handle: IcebergTable, catalog: Catalog, kind: CatalogKind, saw: Saw
    ) -> None:
        await handle.create(SCHEMA)
        before = (await handle.load()).metadata.table_uuid
        if kind.create_of_existing_is_refused:
            with pytest.raises(TableAlreadyExistsError):
                catalog.create_table(handle.identifier, SCHEMA)
        else:
            assert catalog.create_table(handle.identifier, SCHEMA).metadata.table_uuid == before
            saw("gives the existing table")
        assert (await handle.load()).metadata.table_uuid == before

    async def test_what_a_commit_to_a_dropped_table_answers(
        self, handle: IcebergTable, catalog: Catalog, kind: CatalogKind, saw: Saw
    ) -> None:
        await handle.create(SCHEMA)
        committer = await self.opened(handle)
        catalog.drop_table(handle.identifier)
        with pytest.raises(kind.commit_to_dropped) as refused:
            await handle.put_and_commit(committer.table, self.change(committer, [1]))
        assert kind.commit_to_dropped is CommitFailedException or not isinstance(refused.value, CommitFailedException)
        saw(kind.commit_to_dropped.__name__)
        assert await handle.load() is None

    async def test_a_column_whose_type_takes_150_000_characters(
        self, handle: IcebergTable, kind: CatalogKind, saw: Saw
    ) -> None:
        schema = Schema(NestedField(3001, "wide", LONG_TYPE))
        if kind.long_types:
            await handle.create(schema)
            assert len((await handle.load()).schema().find_field("wide").field_type.fields) == len(LONG_TYPE.fields)
            return
        with pytest.raises(Exception, match=r".+"):
            await handle.create(schema)
        assert await handle.load() is None
        saw(REFUSED)


def test_the_check_of_a_catalog_says_what_it_does_wrong(running: RunningCatalog, kind: CatalogKind, saw: Saw) -> None:
    config = CatalogConfig(running.kind, NAME, running.properties)
    wrong = [step.name for step in Trial(config, f"streamlake_trial_{next(numbers)}").run() if not step.passed]
    assert wrong == ([] if kind.fences_first_commit else ["stale commit"])
    if wrong:
        saw(", ".join(wrong))

"""Ids of what a commit adds to a table that has moved on since its client saw it."""

from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.table.update import (
    AddPartitionSpecUpdate,
    AddSchemaUpdate,
    AddSortOrderUpdate,
    SetCurrentSchemaUpdate,
    SetDefaultSortOrderUpdate,
    SetDefaultSpecUpdate,
    SetPropertiesUpdate,
)
from pyiceberg.transforms import BucketTransform, IdentityTransform
from pyiceberg.types import LongType, NestedField, StringType

from streamlake.iceberg_rest.numbering import renumbered
from streamlake.iceberg_rest.sql_commit import Change, commit

X = NestedField(1, "x", LongType(), required=False)
Y = NestedField(2, "y", StringType(), required=False)
Z = NestedField(2, "z", LongType(), required=False)


@pytest.fixture
def table(catalog: SqlCatalog) -> Table:
    """Two schemas: 0 is (x), 1 is (x, y), the current one."""
    catalog.create_namespace("a")
    table = catalog.create_table("a.t", pa.schema([("x", pa.int64())]))
    with table.update_schema() as change:
        change.add_column("y", StringType())
    return table


def spec(id: int, transform: Any) -> AddPartitionSpecUpdate:
    field = PartitionField(source_id=1, field_id=1000, transform=transform, name="part")
    return AddPartitionSpecUpdate(spec=PartitionSpec(field, spec_id=id))


def test_what_the_table_has_keeps_its_id(table: Table) -> None:
    updates = (AddSchemaUpdate(schema=Schema(X, schema_id=7)), SetCurrentSchemaUpdate(schema_id=-1))
    assert renumbered(updates, table.metadata) == (SetCurrentSchemaUpdate(schema_id=0),)


def test_an_id_that_is_taken_is_not_given_twice(table: Table, catalog: SqlCatalog) -> None:
    updates = (AddSchemaUpdate(schema=Schema(X, Z, schema_id=1)), SetCurrentSchemaUpdate(schema_id=1))
    commit(catalog, [Change(("a", "t"), (), updates, lambda _: None)])
    now = catalog.load_table("a.t").metadata
    assert [schema.schema_id for schema in now.schemas] == [0, 1, 2]
    assert [field.name for field in now.schema().fields] == ["x", "z"]


def test_partition_specs(table: Table, catalog: SqlCatalog) -> None:
    for id, transform in ((1, IdentityTransform()), (1, BucketTransform(4)), (9, IdentityTransform())):
        updates = (spec(id, transform), SetDefaultSpecUpdate(spec_id=-1))
        commit(catalog, [Change(("a", "t"), (), updates, lambda _: None)])
    now = catalog.load_table("a.t").metadata
    assert [one.spec_id for one in now.partition_specs] == [0, 1, 2] and now.default_spec_id == 1


def test_sort_orders(table: Table) -> None:
    order = SortOrder(SortField(source_id=1, transform=IdentityTransform()), order_id=0)
    updates = (AddSortOrderUpdate(sort_order=order), SetDefaultSortOrderUpdate(sort_order_id=-1))
    added, chosen = renumbered(updates, table.metadata)
    assert isinstance(added, AddSortOrderUpdate) and isinstance(chosen, SetDefaultSortOrderUpdate)
    assert (added.sort_order.order_id, added.sort_order.fields, chosen.sort_order_id) == (1, order.fields, 1)


def test_the_rest_is_left_alone(table: Table) -> None:
    updates = (SetPropertiesUpdate(updates={"k": "v"}), SetCurrentSchemaUpdate(schema_id=0))
    assert renumbered(updates, table.metadata) == updates

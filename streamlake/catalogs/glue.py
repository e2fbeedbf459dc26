"""AWS Glue: pyiceberg's, without retries of its own, and with a clear word where Glue cannot hold a column's type.

A commit that boto3 retries may conflict with its own first attempt, which landed. Whether a commit is sent again is
the committer's choice.
"""

from typing import Any

from pyiceberg.catalog.glue import GLUE_MAX_RETRIES, GlueCatalog, _IcebergSchemaToGlueType
from pyiceberg.schema import Schema, visit
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.update import AddSchemaUpdate, TableRequirement, TableUpdate

from streamlake.catalogs import durable_io
from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.kinds import KINDS
from streamlake.core.disk import Disk
from streamlake.core.errors import Invalid


def load(config: CatalogConfig, disk: Disk) -> GlueCatalog:
    """Makes a client, and asks nobody yet. Raises Invalid, and what boto3 raises: without a region, for one."""
    properties = dict(config.properties)
    try:
        properties[GLUE_MAX_RETRIES] = int(properties.get(GLUE_MAX_RETRIES, 0))  # pyiceberg would hand boto3 a string
    except ValueError:
        raise Invalid(f"{config.where}: {GLUE_MAX_RETRIES} must be a whole number") from None
    durable_io.choose_for(properties, disk)
    return CheckedGlueCatalog(config.name, **properties)


class CheckedGlueCatalog(GlueCatalog):
    """Glue stores each column's type as text of limited length, and refuses longer ones with an error that names
    nothing. Before anything is written the column is named instead."""

    def create_table(self, identifier: Any, schema: Schema, *args: Any, **kwargs: Any) -> Table:
        check_types(schema)
        return super().create_table(identifier, schema, *args, **kwargs)

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        for update in updates:
            if isinstance(update, AddSchemaUpdate):
                check_types(update.schema_)
        return super().commit_table(table, requirements, updates)


def check_types(schema: Schema) -> None:
    limit = KINDS["glue"].capabilities.type_chars_max
    assert limit is not None
    for field in schema.fields:
        length = len(visit(field.field_type, _IcebergSchemaToGlueType()))
        if length > limit:
            raise Invalid(
                f"column {field.name} cannot be in a table of AWS Glue: its type is {length:,} characters long there, "
                f"and at most {limit:,} are possible. Flatten the record (streamlake.table.transform.value.type), "
                "or use a catalog without this limit, such as an Iceberg REST catalog (kind rest)"
            )

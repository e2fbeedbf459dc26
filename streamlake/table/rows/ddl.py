"""A table's schema as a statement that people can read, in Spark's words."""

from collections.abc import Iterator

from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import BucketTransform, IdentityTransform, TruncateTransform

from streamlake.table.rows.type_text import NAMES, Words, type_text


def create_table(name: str, schema: Schema, spec: PartitionSpec) -> str:
    columns = ",\n".join(f"  {quoted(field.name)} {type_text(field.field_type, SPARK)}" for field in schema.fields)
    by = ", ".join(partitions(schema, spec))
    partitioned = f"\nPARTITIONED BY ({by})" if by else ""
    return f"CREATE TABLE {'.'.join(map(quoted, name.split('.')))} (\n{columns}\n) USING iceberg{partitioned}"


def quoted(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else "`" + name.replace("`", "``") + "`"


SPARK = Words(NAMES, ", ", ": ", quoted)


def partitions(schema: Schema, spec: PartitionSpec) -> Iterator[str]:
    """The fields of a spec."""
    for field in spec.fields:
        name = ".".join(quoted(part) for part in schema.find_column_name(field.source_id).split("."))  # type: ignore[union-attr]
        match field.transform:
            case IdentityTransform():
                yield name
            case BucketTransform(num_buckets=number):
                yield f"bucket({number}, {name})"
            case TruncateTransform(width=width):
                yield f"truncate({width}, {name})"
            case other:
                yield f"{other}s({name})"  # years, months, days, hours

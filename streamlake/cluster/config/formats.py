"""What the server knows of record formats: the values of `streamlake.table.convert.{value,key}.type`.

How records of a type are read is listed in streamlake/table/formats/kinds.py, which only the table worker loads.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from streamlake.cluster.config.columns import BYTES, TEXT


@dataclass(frozen=True, slots=True)
class ConvertType:
    """`column` says in words what its column is, None if only a schema tells; then values may have fields, which
    transform.value.type = flatten lifts. `option` is what `streamlake topic create --value` calls it."""

    name: str
    column: str | None
    option: str

    @property
    def by_schema(self) -> bool:
        return self.column is None


CONVERT_TYPES: Mapping[str, ConvertType] = {
    found.name: found
    for found in (
        ConvertType("raw", BYTES, option="raw"),
        ConvertType("string", TEXT, option="string"),
        ConvertType("by_schema_id", None, option="avro"),
    )
}

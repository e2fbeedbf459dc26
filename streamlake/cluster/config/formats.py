"""Record formats as the server knows them: the values of `streamlake.table.convert.{value,key}.type`.

The readers of these formats are listed in streamlake/table/formats/kinds.py, which only the table worker loads.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from streamlake.cluster.config.columns import BYTES, TEXT


@dataclass(frozen=True, slots=True)
class ConvertType:
    """`column` is the kind of its column in words, None if the schema of a record decides; then values may have fields,
    and transform.value.type = flatten makes columns of them. `option` is its name in `streamlake topic create --value`.
    `of_keys`: keys may be of it, too.
    """

    name: str
    column: str | None
    option: str
    of_keys: bool = True

    @property
    def by_schema(self) -> bool:
        return self.column is None


CONVERT_TYPES: Mapping[str, ConvertType] = {
    found.name: found
    for found in (
        ConvertType("raw", BYTES, option="raw"),
        ConvertType("string", TEXT, option="string"),
        ConvertType("by_schema_id", None, option="avro"),
        ConvertType("by_latest_schema", None, option="latest"),
        ConvertType("json", None, option="json", of_keys=False),
    )
}

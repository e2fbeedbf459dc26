"""The columns that StreamLake adds to a table, by layout, and the kinds of columns in words.

This is the only list of their names: streamlake/table/rows/layout.py makes them, `partition.by` is checked against them
before the table exists, and no other column or partition field may have their names.
"""

from collections.abc import Mapping
from dataclasses import dataclass

NUMBER, TEXT, BYTES, TIME, NESTED = "a number", "text", "binary", "a time", "made of several values"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of the parts of a record. `value` is for a value that is not flattened. `fields` are the fields of the
    column `struct` whose types are known; the types of `value` and `key` depend on their conversion."""

    name: str
    value: str
    key: str
    headers: str
    struct: str
    fields: Mapping[str, str]

    @property
    def columns(self) -> dict[str, str]:
        """The kind of each path, in words, without key and value."""
        fields = {f"{self.struct}.{name}": kind for name, kind in self.fields.items()}
        return {self.struct: NESTED, self.headers: NESTED, **fields}

    @property
    def roots(self) -> frozenset[str]:
        """The top-level columns."""
        return frozenset(path.partition(".")[0] for path in (self.value, self.key, self.headers, self.struct))


STREAMLAKE = Layout(
    "streamlake",
    value="value",
    key="_kafka.key",
    headers="_kafka.headers",
    struct="_kafka",
    fields={"topic": TEXT, "partition": NUMBER, "offset": NUMBER, "timestamp": TIME, "timestamp_type": TEXT},
)
AUTOMQ = Layout(
    "automq",
    value="_kafka_value",
    key="_kafka_key",
    headers="_kafka_header",
    struct="_kafka_metadata",
    fields={"partition": NUMBER, "offset": NUMBER, "timestamp": NUMBER},
)
LAYOUTS: Mapping[str, Layout] = {layout.name: layout for layout in (STREAMLAKE, AUTOMQ)}

# Beside the columns of a row that a change is about (transform.value.type = flatten_debezium).
OP, OP_TIME, OP_SOURCE = "_op", "_op_ts", "_source"
CHANGE_COLUMNS: Mapping[str, str] = {OP: TEXT, OP_TIME: TIME}  # of which the kind is known

# Of all layouts: the layout of a topic may change.
OWN_COLUMNS = frozenset().union(*(layout.roots for layout in LAYOUTS.values()))

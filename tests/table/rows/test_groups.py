import pyarrow as pa
from pyiceberg.types import IntegerType, StringType
from support.table_records import batch_of

from streamlake.table.formats.converted import Converted, Group
from streamlake.table.rows.groups import row_groups


def group(type, arrow, rows, values) -> Group:
    return Group(type, pa.array(rows, pa.int64()), pa.array(values, arrow))


def groups(values, keys, bad, n):
    value, key = Converted(tuple(values)), Converted(tuple(keys))
    found = row_groups(batch_of([b""] * n), value, key, bad, topic="t", layout="streamlake", flatten=False)
    return [
        (g.rows.to_pylist(), [c.field.name for c in g.columns], g.arrays[0].to_pylist() if len(g.arrays) > 1 else None, [k.get("key") for k in g.arrays[-1].to_pylist()], [k["offset"] for k in g.arrays[-1].to_pylist()])
        for g in found
    ]  # fmt: skip


def test_one_schema_is_one_group_as_it_is() -> None:
    value = group(IntegerType(), pa.int32(), [0, 1], [10, 11])
    key = group(StringType(), pa.large_string(), [0, 1], ["a", "b"])
    assert groups([value], [key], (), 2) == [([0, 1], ["value", "_kafka"], [10, 11], ["a", "b"], [0, 1])]


def test_pairs_of_schemas_and_rows_without_any() -> None:
    values = [
        group(IntegerType(), pa.int32(), [0, 2, 5], [10, 12, 15]),
        group(StringType(), pa.large_string(), [1, 4], ["v1", "v4"]),
    ]
    keys = [group(StringType(), pa.large_string(), [0, 1, 3, 4], ["k0", "k1", "k3", "k4"])]
    assert groups(values, keys, {4}, 6) == [
        ([0], ["value", "_kafka"], [10], ["k0"], [0]),
        ([1], ["value", "_kafka"], ["v1"], ["k1"], [1]),
        ([2, 5], ["value", "_kafka"], [12, 15], [None, None], [2, 5]),
        ([3], ["_kafka"], None, ["k3"], [3]),
    ]


def test_no_rows() -> None:
    assert groups([group(IntegerType(), pa.int32(), [], [])], [], (), 0) == []
    assert groups([group(IntegerType(), pa.int32(), [], [])], [], {0}, 1) == []

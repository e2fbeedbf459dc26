import pyarrow as pa
from support.table_records import Registry

from streamlake.table.formats import raw
from streamlake.table.formats.converted import Reason
from streamlake.table.formats.resolve import SchemaCache


def test_bytes_and_nulls_stay() -> None:
    converted = raw.convert(
        pa.array([b"a", None, b"", b"\xff"], pa.binary()), Reason.INVALID_VALUE, SchemaCache(Registry())
    )
    (group,) = converted.groups
    assert group.rows.to_pylist() == [0, 1, 2, 3]
    assert group.values.to_pylist() == [b"a", None, b"", b"\xff"]
    assert converted.errors == ()


def test_no_rows_still_have_a_type() -> None:
    (group,) = raw.convert(pa.array([], pa.binary()), Reason.INVALID_VALUE, SchemaCache(Registry())).groups
    assert (str(group.type), len(group.values)) == ("binary", 0)

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.types import DecimalType, DoubleType, FloatType, IntegerType, LongType, StringType
from support.avro_cases import RECORDS, schema_text
from support.table_records import Registry, records
from support.table_records import settings as table_settings

from streamlake.table.formats.resolve import SchemaCache
from streamlake.table.formats.source_schema import (
    VALUE,
    SourceColumn,
    SourceList,
    SourceMap,
    SourceStruct,
    arrow_type,
    source_field,
)
from streamlake.table.rows import pipeline
from streamlake.table.rows.evolve import evolve
from streamlake.table.rows.field_map import key_of
from streamlake.table.rows.groups import RowGroup
from streamlake.table.rows.project import project, table_schema


def group(**fields) -> RowGroup:
    """Columns given as (source type, values)."""
    columns = tuple(SourceColumn(VALUE, source_field(name, type)) for name, (type, _) in fields.items())
    arrays = tuple(pa.array(values, arrow_type(type)) for type, values in fields.values())
    return RowGroup(pa.array(range(len(arrays[0])), pa.int64()), columns, arrays)


def struct(**fields) -> SourceStruct:
    return SourceStruct(tuple(source_field(name, type) for name, type in fields.items()))


def both(first: RowGroup, second: RowGroup) -> list[dict]:
    evolution = evolve(None, [first.columns, second.columns])
    target = table_schema(evolution.schema)
    tables = [project(g, evolution.schema, target, b) for g, b in zip((first, second), evolution.bindings, strict=True)]
    for table in tables:
        assert table.schema.equals(table_schema(evolution.schema), check_metadata=True)
        table.validate(full=True)
    return pa.concat_tables(tables).to_pylist()


def test_widens_and_fills_missing_columns_at_every_level() -> None:
    first = group(
        a=(IntegerType(), [1, None]),
        s=(struct(x=FloatType()), [{"x": 0.5}, None]),
        l=(SourceList(struct(p=IntegerType())), [[{"p": 1}, None], None]),
        m=(SourceMap(StringType(), DecimalType(3, 1)), [[("k", None)], None]),
    )
    second = group(
        a=(LongType(), [2]),
        s=(struct(y=StringType(), x=DoubleType()), [{"y": "q", "x": 1.5}]),
        l=(SourceList(struct(q=IntegerType(), p=LongType())), [[{"q": 7, "p": 8}]]),
        m=(SourceMap(StringType(), DecimalType(5, 1)), [[]]),
        n=(StringType(), ["new"]),
    )
    assert both(first, second) == [
        {"a": 1, "s": {"x": 0.5, "y": None}, "l": [{"p": 1, "q": None}, None], "m": [("k", None)], "n": None},
        {"a": None, "s": None, "l": None, "m": None, "n": None},
        {"a": 2, "s": {"x": 1.5, "y": "q"}, "l": [{"p": 8, "q": 7}], "m": [], "n": "new"},
    ]


def test_sliced_lists() -> None:
    whole = group(
        l=(SourceList(IntegerType()), [[1], None, [2, 3]]),
        m=(SourceMap(StringType(), IntegerType()), [[("a", 1)], [], [("b", 2)]]),
    )
    cut = RowGroup(pa.array([0, 1], pa.int64()), whole.columns, tuple(array.slice(1) for array in whole.arrays))
    assert both(cut, cut)[:2] == [{"l": None, "m": []}, {"l": [2, 3], "m": [("b", 2)]}]


def test_two_columns_that_changed_names_are_exchanged() -> None:
    """The types are the same, so only the binding tells."""
    given = group(s=(struct(x=IntegerType(), y=IntegerType()), [{"x": 1, "y": 2}]))
    evolution = evolve(None, [given.columns])
    (binding,) = evolution.bindings
    of_s = evolution.schema.find_field("s").field_id
    x, y = key_of(of_s, "x"), key_of(of_s, "y")
    exchanged = {**binding, x: binding[y], y: binding[x]}
    table = project(given, evolution.schema, table_schema(evolution.schema), exchanged)
    assert table.to_pylist() == [{"s": {"x": 2, "y": 1}}]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=40)
@given(
    RECORDS.flatmap(lambda case: st.tuples(st.just(case), st.lists(case.values | st.none(), min_size=1, max_size=5)))
)
def test_avro_values_reach_the_table_unchanged(case_and_values) -> None:
    case, values = case_and_values
    sent = records([v and b"\0\0\0\0\1" + v[0] for v in values])
    options = table_settings(convert_value="by_schema_id")
    translated = pipeline.translate(sent, options, SchemaCache(Registry({1: schema_text(case)})), "t")
    evolved = pipeline.evolve(None, translated)
    assert evolved.dead == ()
    rows = pipeline.assemble(translated, evolved).to_pylist()
    found = {row["_kafka"]["offset"]: row.get("value") for row in rows}
    assert found == {i: v and v[1] for i, v in enumerate(values)}

"""Schema evolution, case by case, and that a catalog accepts what comes out."""

import json
from dataclasses import replace

import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import SortOrder
from pyiceberg.table.update import update_table_metadata
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import (
    BinaryType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
)

from streamlake.core.errors import Invalid
from streamlake.table.formats.source_schema import (
    ROW,
    VALUE,
    SourceColumn,
    SourceField,
    SourceList,
    SourceMap,
    SourceStruct,
    source_field,
)
from streamlake.table.rows import field_map
from streamlake.table.rows.evolve import CurrentTable, Incompatible, evolve, renumbered
from streamlake.table.rows.partition import names_taken

INT, LONG, STRING = IntegerType(), LongType(), StringType()


def value(name, type, *aliases, doc=None) -> SourceColumn:
    return SourceColumn(VALUE, SourceField(name, name, type, aliases, doc))


def row(name, type) -> SourceColumn:
    return SourceColumn(ROW, source_field(name, type))


def struct(**fields) -> SourceStruct:
    return SourceStruct(tuple(source_field(name, type) for name, type in fields.items()))


class Table:
    """A table that evolves as a catalog would let it."""

    def __init__(
        self,
        schema: Schema,
        properties: dict[str, str] | None = None,
        spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
    ) -> None:
        self.metadata = new_table_metadata(schema, spec, SortOrder(), "/nowhere", properties or {})

    @property
    def current(self) -> CurrentTable:
        m = self.metadata
        fields = field_map.decode(m.properties.get(field_map.PROPERTY))
        namers = field_map.decode_namers(m.properties.get(field_map.PROPERTY))
        return CurrentTable(m.schemas, m.current_schema_id, m.last_column_id, fields, names_taken(m), namers)

    def evolve(self, *sources):
        evolution = evolve(self.current, sources)
        for requirement in evolution.requirements:
            requirement.validate(self.metadata)
        if evolution.updates:
            self.metadata = update_table_metadata(self.metadata, evolution.updates)
        assert self.metadata.schema() == evolution.schema
        assert self.metadata.schema().schema_id == evolution.schema.schema_id
        assert self.current.fields == evolution.fields
        return evolution

    def shown(self) -> dict[str, str]:
        return {f"{f.field_id} {f.name}": str(f.field_type) for f in self.metadata.schema().fields}


def created(*source) -> Table:
    first = evolve(None, [source])
    assert (first.updates, first.requirements) == ((), ())
    table = Table(first.schema)
    assert table.metadata.schema() == first.schema  # the catalog numbers columns as we did
    adopted = table.evolve(source)
    assert adopted.fields == first.fields
    assert adopted.schema == first.schema
    return table


NESTED = (
    value("id", INT),
    value("addr", struct(street=STRING, geo=struct(lat=FloatType()))),
    value("tags", SourceList(struct(k=INT))),
    value("attrs", SourceMap(STRING, struct(v=INT))),
    row("_kafka", struct(offset=LONG)),
)


def test_the_first_schema_creates_and_the_second_round_records_the_map() -> None:
    table = created(*NESTED)
    assert [f.required for f in table.metadata.schema().fields] == [False] * 5
    assert json.loads(table.metadata.properties["streamlake.fields"]) == {
        "version": 1,
        "fields": {
            "value/id": 1, "value/addr": 2, "value/tags": 3, "value/attrs": 4, "row/_kafka": 5,
            "2/street": 6, "2/geo": 7, "7/lat": 8, "9/k": 10, "12/v": 13, "5/offset": 14,
        },
    }  # fmt: skip
    again = table.evolve(NESTED)
    assert (again.updates, again.requirements) == ((), ())


def test_no_source_changes_nothing() -> None:
    assert created(*NESTED).evolve().updates == ()
    assert evolve(None, []).schema.fields == ()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([value("a", INT)], [value("a", INT), value("b", STRING)], {"1 a": "int", "2 b": "string"}),
        ([value("a", INT), value("b", INT)], [value("b", INT)], {"1 a": "int", "2 b": "int"}),
        ([value("a", INT)], [value("a", LONG)], {"1 a": "long"}),
        ([value("a", LONG)], [value("a", INT)], {"1 a": "long"}),
        ([value("a", FloatType())], [value("a", DoubleType())], {"1 a": "double"}),
        ([value("a", DecimalType(5, 2))], [value("a", DecimalType(9, 2))], {"1 a": "decimal(9, 2)"}),
        ([value("a", DecimalType(9, 2))], [value("a", DecimalType(5, 2))], {"1 a": "decimal(9, 2)"}),
        ([value("a", INT)], [value("b", INT, "a")], {"1 b": "int"}),
        ([value("a", INT)], [value("b", LONG, "x", "a")], {"1 b": "long"}),
        ([value("a", INT)], [value("a", INT), value("b", INT, "a")], {"1 a": "int", "2 b": "int"}),
        ([value("a", INT)], [value("A", INT)], {"1 a": "int", "2 A_2": "int"}),
        ([value("a", INT), value("A", INT)], [value("B", INT, "a")], {"1 B": "int", "2 A_2": "int"}),
        ([value("a", INT), value("b", INT)], [value("b", INT), value("B", INT, "a")], {"1 B_2": "int", "2 b": "int"}),
        (
            [value("s", struct(a=INT))],
            [value("s", struct(a=LONG, b=STRING))],
            {"1 s": "struct<2: a: optional long, 3: b: optional string>"},
        ),
        ([value("s", SourceList(INT))], [value("s", SourceList(LONG))], {"1 s": "list<long>"}),
        ([value("s", SourceMap(STRING, INT))], [value("s", SourceMap(STRING, LONG))], {"1 s": "map<string, long>"}),
        (
            [value("s", SourceList(SourceMap(STRING, struct(a=INT))))],
            [value("s", SourceList(SourceMap(STRING, struct(b=INT))))],
            {"1 s": "list<map<string, struct<5: a: optional int, 6: b: optional int>>>"},
        ),
        ([row("value", STRING)], [value("value", INT)], {"1 value": "string", "2 value_2": "int"}),
    ],
)
def test_changes_that_fit(before, after, expected) -> None:
    table = created(*before)
    evolution = table.evolve(after)
    assert not isinstance(evolution.bindings[0], Incompatible)
    assert table.shown() == expected
    assert table.evolve(before, after).updates == ()  # old and new writers go on side by side


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        (STRING, INT, "a"),
        (LONG, DoubleType(), "a"),
        (INT, DateType(), "a"),
        (TimestamptzType(), TimestampType(), "a"),
        (DecimalType(5, 2), DecimalType(6, 3), "a"),
        (FixedType(3), FixedType(4), "a"),
        (BinaryType(), STRING, "a"),
        (INT, struct(x=INT), "a"),
        (struct(x=INT), INT, "a"),
        (struct(x=INT), struct(x=STRING), "a.x"),
        (SourceList(INT), SourceList(STRING), "a.element"),
        (SourceList(struct(x=INT)), SourceList(struct(x=STRING)), "a.element.x"),
        (SourceList(INT), SourceMap(STRING, INT), "a"),
        (SourceMap(STRING, INT), SourceMap(INT, INT), "a.key"),
        (SourceMap(STRING, INT), SourceMap(STRING, STRING), "a.value"),
    ],
)
def test_changes_that_do_not_fit_refuse_the_whole_source_and_nothing_else(before, after, path) -> None:
    table = created(value("a", before))
    shown = table.shown()
    good = [value("a", before), value("good", INT)]
    evolution = table.evolve([value("new", INT), value("a", after)], good)
    refused, bound = evolution.bindings
    assert isinstance(refused, Incompatible)
    assert refused.path == path
    assert "the new schema has" in str(refused)
    assert bound["value/good"] == evolution.schema.highest_field_id
    assert [name.split()[1] for name in table.shown()] == [*(name.split()[1] for name in shown), "good"]


def test_a_renamed_struct_keeps_its_children() -> None:
    table = created(value("addr", struct(street=STRING)))
    table.evolve([value("address", struct(street=STRING, zip=STRING), "addr")])
    assert table.shown() == {"1 address": "struct<2: street: optional string, 3: zip: optional string>"}


def test_a_nested_field_is_renamed_by_its_alias() -> None:
    table = created(value("s", SourceList(struct(old=INT))))
    table.evolve([value("s", SourceList(SourceStruct((SourceField("new", "new", INT, ("old",)),))))])
    assert table.shown() == {"1 s": "list<struct<3: new: optional int>>"}


def test_after_a_rename_old_writers_do_not_rename_it_back() -> None:
    table = created(value("a", INT))
    table.evolve([value("b", INT, "a")])
    assert table.evolve([value("a", INT)]).bindings == ({"value/a": 1},)
    assert table.shown() == {"1 b": "int"}


def test_a_new_field_may_take_a_name_that_was_renamed_away() -> None:
    table = created(value("a", INT))
    table.evolve([value("b", INT, "a")])
    evolution = table.evolve([value("a", STRING), value("b", INT, "a")])
    assert evolution.bindings == ({"value/a": 2, "value/b": 1},)
    assert table.shown() == {"1 b": "int", "2 a": "string"}


def test_a_field_that_comes_back_finds_its_column() -> None:
    table = created(value("a", INT), value("b", INT))
    table.evolve([value("a", INT)])
    assert table.evolve([value("b", LONG)]).bindings == ({"value/b": 2},)


def test_a_column_that_somebody_dropped_comes_back_as_a_new_one() -> None:
    table = created(value("a", INT), value("b", INT))
    other = Schema(*table.metadata.schema().fields[:1], schema_id=1)
    stale = CurrentTable([*table.current.schemas, other], 1, 2, table.current.fields)
    evolution = evolve(stale, [[value("a", INT), value("b", INT)]])
    assert evolution.bindings == ({"value/a": 1, "value/b": 3},)
    assert evolution.fields == {"value/a": 1, "value/b": 3}


def test_an_older_schema_is_set_not_added_again() -> None:
    table = created(value("a", INT))
    old = table.current
    table.evolve([value("a", INT), value("b", INT)])
    reverted = CurrentTable(table.current.schemas, 0, 2, table.current.fields)
    evolution = evolve(reverted, [[value("a", INT), value("b", STRING)]])
    assert [u.action for u in evolution.updates] == ["add-schema", "set-current-schema", "set-properties"]
    again = CurrentTable([*reverted.schemas], 1, 2, table.current.fields)
    back = evolve(
        CurrentTable([again.schemas[0], again.schemas[1]], 0, 1, old.fields), [[value("a", INT), value("b", INT)]]
    )
    assert [u.action for u in back.updates] == ["set-current-schema", "set-properties"]
    assert back.schema.schema_id == 1


def test_names_are_made_safe() -> None:
    table = created(
        value("a.b", INT), value("", INT), value("_kafka", INT), value("_file", INT), row("_kafka", struct(offset=LONG))
    )
    assert [name.split()[1] for name in table.shown()] == ["a_b", "_", "_kafka_2", "_file_2", "_kafka"]


def test_a_table_made_by_hand_is_adopted_by_name_and_relaxed() -> None:
    schema = Schema(
        NestedField(1, "ID", LongType(), required=True),
        NestedField(2, "s", StructType(NestedField(3, "x", INT, required=True)), required=True),
        NestedField(4, "l", ListType(5, INT, element_required=True), required=True),
        NestedField(6, "m", MapType(7, STRING, 8, INT, value_required=True), required=True),
        NestedField(9, "note", STRING, required=True),
    )
    table = Table(schema)
    table.evolve(
        [value("id", INT), value("s", struct(x=INT)), value("l", SourceList(INT)), value("m", SourceMap(STRING, INT))]
    )
    fields = table.metadata.schema().fields
    assert [(f.field_id, f.name, f.required) for f in fields] == [
        (i, n, False) for i, n in enumerate(("ID", "s", "l", "m", "note"), 1)
    ]
    assert str(fields[1].field_type) == "struct<6: x: optional int>"
    assert not fields[2].field_type.element_required
    assert not fields[3].field_type.value_required


def test_a_hand_made_column_of_another_type_is_incompatible() -> None:
    table = Table(Schema(NestedField(1, "id", STRING)))
    (refused,) = table.evolve([value("id", INT)]).bindings
    assert str(refused) == "column id: is string, but the new schema has int"


def test_identifier_fields_are_refused() -> None:
    table = Table(Schema(NestedField(1, "id", INT, required=True), identifier_field_ids=[1]))
    with pytest.raises(Invalid, match="identifier fields"):
        evolve(table.current, [])


def test_a_schema_change_in_between_fails_the_requirements() -> None:
    table = created(value("a", INT))
    evolution = evolve(table.current, [[value("a", INT), value("b", INT)]])
    table.evolve([value("a", INT), value("c", INT)])
    with pytest.raises(CommitFailedException):
        for requirement in evolution.requirements:
            requirement.validate(table.metadata)


def test_docs_become_column_docs() -> None:
    table = created(value("a", INT, doc="how many"))
    assert table.metadata.schema().find_field("a").doc == "how many"


def test_a_column_does_not_take_the_name_of_a_partition() -> None:
    """Java's and Rust's Iceberg refuse a spec with such a field. The column of an identity partition lends its name."""
    columns = Schema(NestedField(1, "ts", TimestamptzType()), NestedField(2, "region", STRING))
    spec = PartitionSpec(
        PartitionField(1, 1000, DayTransform(), "ts_day"), PartitionField(2, 1001, IdentityTransform(), "region")
    )
    table = Table(columns, spec=spec)
    table.evolve(
        [value("ts", TimestamptzType()), value("region", STRING), value("TS_day", STRING), value("ts_day_2", INT)]
    )
    assert [field.name for field in table.metadata.schema().fields] == ["ts", "region", "TS_day_2", "ts_day_2_2"]
    table.evolve([value("zone", STRING, "region")])
    table.evolve([value("zone", STRING), value("region", INT)])
    names = [field.name for field in table.metadata.schema().fields]
    assert names == ["ts", "zone", "TS_day_2", "ts_day_2_2", "region_2"]


def test_a_type_that_is_too_long_for_the_catalog_refuses_its_source_and_nothing_else() -> None:
    narrow, wide = value("v", struct(a=LONG)), value("v", struct(a=LONG, b=LONG))  # struct<a:bigint>, 16 characters
    evolution = evolve(None, [[wide], [narrow]], 20)
    refused, fits = evolution.bindings
    assert str(refused) == "column v: its type as text has 25 characters, and the catalog takes 20 at most"
    assert not isinstance(fits, Incompatible)
    assert str(evolution.schema.find_type("v")) == "struct<2: a: optional long>"
    assert not isinstance(evolve(None, [[wide]], 25).bindings[0], Incompatible)


# -- fields that are known by a number -------------------------------------------------------------------------------------


def message(schema_id, *fields, of="shop.Order", schema=VALUE):
    """A source of one Protobuf schema; fields are (number, name, type)."""
    return [
        SourceColumn(schema, SourceField(f"#{number}", name, type, message=of), schema_id)
        for number, name, type in fields
    ]


def made_by(sources) -> Table:
    """A table that is made for several sources; its catalog numbers the columns in its own order."""
    first = evolve(None, sources)
    table = Table(assign_fresh_schema_ids(first.schema))
    fields, namers = renumbered(first, table.metadata.schema())
    stored = table.current
    second = evolve(replace(stored, fields=fields, namers=namers), sources, None, stored)
    table.metadata = update_table_metadata(table.metadata, second.updates)
    assert table.current.fields == second.fields and table.current.namers == second.namers
    return table


def names(table: Table) -> list[str]:
    return [f.name for f in table.metadata.schema().fields]


def inner(*fields, of="shop.Order.In"):
    return SourceStruct(tuple(SourceField(f"#{n}", name, type, message=of) for n, name, type in fields))


def test_a_newer_schema_renames_the_column_of_a_number_and_an_older_one_does_not() -> None:
    table = created(*message(5, (1, "a", INT), (2, "b", STRING)))
    table.evolve(message(8, (1, "renamed", LONG), (2, "b", STRING)))
    assert names(table) == ["renamed", "b"]
    for schema_id, name in ((5, "a"), (6, "c"), (8, "renamed")):  # writers that are behind
        assert table.evolve(message(schema_id, (1, name, INT))).updates == ()
    table.evolve(message(9, (1, "b", INT), (2, "renamed", STRING)))  # taken at this moment
    assert names(table) == ["b_2", "renamed_2"]
    table.evolve(message(10, (1, "a", INT), (2, "b", STRING)))
    assert [f.field_id for f in table.metadata.schema().fields] == [1, 2]


def test_the_newest_names_the_columns_of_a_new_table_whoever_comes_first() -> None:
    for order in ((5, 8), (8, 5)):
        sources = {5: message(5, (1, "a", INT)), 8: message(8, (1, "b", INT))}
        table = made_by([sources[id] for id in order])
        table.evolve(sources[5])
        assert names(table) == ["b"]


def test_an_alias_in_the_round_that_makes_the_table() -> None:
    table = made_by([[value("a", struct(x=INT))], [value("b", struct(y=INT, x=LONG), "a")]])
    table.evolve([value("a", struct(x=INT))])
    assert names(table) == ["b"]
    assert table.shown() == {"1 b": "struct<2: x: optional long, 3: y: optional int>"}


def test_messages_of_another_type_do_not_rename() -> None:
    table = created(*message(5, (1, "a", INT)))
    table.evolve(message(8, (1, "x", INT), of="shop.Other"))
    assert names(table) == ["a"]


def test_nested_fields_are_renamed_too() -> None:
    table = created(*message(5, (1, "s", inner((1, "a", INT))), (2, "l", SourceList(inner((1, "a", INT))))))
    table.evolve(message(8, (1, "s", inner((1, "z", INT))), (2, "l", SourceList(inner((1, "z", INT))))))
    assert table.shown() == {
        "1 s": "struct<3: z: optional int>", "2 l": "list<struct<5: z: optional int>>",
    }  # fmt: skip
    assert table.evolve(message(5, (1, "s", inner((1, "a", INT))))).updates == ()


def test_a_table_that_was_made_before_names_were_accounted_for() -> None:
    table = created(*message(5, (1, "a", INT)))
    old = field_map.encode(table.current.fields)
    table.metadata = table.metadata.model_copy(update={"properties": {field_map.PROPERTY: old}})
    assert table.evolve(message(8, (1, "b", INT))).updates == ()  # nobody knows which name is older
    table.evolve(message(5, (1, "a", INT)))
    table.evolve(message(8, (1, "b", INT)))
    assert names(table) == ["b"]


def test_values_without_a_schema_rename_nothing() -> None:
    table = created(*message(0, (1, "a", INT)))
    assert table.evolve(message(0, (1, "b", INT))).updates == ()

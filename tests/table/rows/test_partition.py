"""Partition specs are checked with clear words, and every value equals pyiceberg's own transform of the row."""

import re
from datetime import UTC, date, datetime, time
from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.partitioning import PartitionField, PartitionFieldValue, PartitionKey, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import SortOrder
from pyiceberg.table.update import (
    AddPartitionSpecUpdate,
    AddSchemaUpdate,
    SetCurrentSchemaUpdate,
    SetDefaultSpecUpdate,
    SetPropertiesUpdate,
    update_table_metadata,
)
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from streamlake.cluster.config.table import partition_fields
from streamlake.table.rows import partition
from streamlake.table.rows.partition import (
    CONFIGURED,
    PENDING,
    NotPartitionable,
    Partitioning,
    folder,
    names_taken,
    partition_spec,
    partitioning,
    pending_of,
    properties_of,
    split,
    unpartitioned,
)
from streamlake.table.rows.project import table_schema

TYPES = {
    "id": LongType(),
    "n": IntegerType(),
    "flag": BooleanType(),
    "name": StringType(),
    "raw": BinaryType(),
    "fix": FixedType(2),
    "day_of": DateType(),
    "at": TimeType(),
    "ts": TimestamptzType(),
    "local": TimestampType(),
    "price": DecimalType(9, 2),
    "key": UUIDType(),
}
SCHEMA = Schema(
    *(NestedField(i, name, type) for i, (name, type) in enumerate(TYPES.items(), 1)),
    NestedField(20, "_kafka", StructType(NestedField(21, "timestamp", TimestamptzType()), NestedField(22, "topic", StringType()))),
    NestedField(30, "tags", ListType(31, StructType(NestedField(32, "t", StringType())))),
    NestedField(40, "n_bucket_5", StringType()),
    NestedField(41, "small", DecimalType(2, 0)),
)  # fmt: skip
VALUES = {
    "id": st.integers(-(2**63), 2**63 - 1),
    "n": st.integers(-(2**31), 2**31 - 1),
    "flag": st.booleans(),
    "name": st.text(max_size=5),
    "raw": st.binary(max_size=5),
    "fix": st.binary(min_size=2, max_size=2),
    "day_of": st.dates(),
    "at": st.times(),
    "ts": st.datetimes().map(lambda d: d.replace(tzinfo=UTC)),
    "local": st.datetimes(),
    "price": st.decimals(-(10**7) + 1, 10**7 - 1, places=2),
    "key": st.uuids(),
}


def table(**columns):
    target = table_schema(SCHEMA)
    rows = len(next(iter(columns.values())))
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(rows, f.type) for f in target]
    return pa.Table.from_arrays(arrays, schema=target)


def items(text: str):
    """One by one, as a table that was made by an older list may have them: a list is checked by itself."""
    return [field for item in re.split(r",(?![^(]*\))", text) for field in partition_fields(item)]


def spec(text: str):
    found, pending = partition_spec(SCHEMA, items(text))
    assert not pending, pending
    return found


LOWEST = {LongType(): -(2**63), IntegerType(): -(2**31)}


CASES = [
    *(("identity", name) for name in TYPES),
    *((f"bucket[{n}]", name) for n in (1, 7, 1000) for name in TYPES if name not in ("flag",)),
    *((f"truncate[{n}]", name) for n in (1, 3, 1000) for name in ("id", "n", "name", "raw", "price")),
    *((unit, name) for unit in ("year", "month", "day") for name in ("day_of", "ts", "local")),
    ("hour", "ts"),
    ("hour", "local"),
]


@pytest.mark.parametrize(("transform", "column"), CASES)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=8)
@given(st.data())
def test_values_equal_pyicebergs(transform, column, data) -> None:
    values = data.draw(st.lists(VALUES[column] | st.none(), min_size=1, max_size=8))
    name, _, number = transform.rstrip("]").partition("[")
    found = spec(f"{name}({column}{', ' + number if number else ''})")
    (field,) = found.fields
    oracle = field.transform.transform(TYPES[column])
    if name == "truncate" and any(
        oracle(value) < LOWEST.get(TYPES[column], 0) for value in values if column in ("id", "n") and value is not None
    ):
        with pytest.raises(NotPartitionable, match="below the column's range"):
            split(table(**{column: values}), SCHEMA, found)
        return
    expected: dict = {}
    for value in values:
        applied = oracle(value)
        key = (
            PartitionKey([PartitionFieldValue(field, applied)], found, SCHEMA).partition
            if transform == "identity"
            else Record(applied)
        )
        expected.setdefault(repr(key[0]), []).append(value)
    parts = split(table(**{column: values}), SCHEMA, found)
    assert {repr(record[0]): part[column].to_pylist() for record, part in parts} == expected


@pytest.mark.parametrize("type", [FloatType(), DoubleType()])
def test_zero_has_one_partition_and_keeps_its_sign_in_the_rows(type) -> None:
    schema = Schema(NestedField(1, "x", type))
    values = [0.0, -0.0, None, float("nan"), -1.5, -0.0, float("inf")]
    rows = pa.table({"x": pa.array(values, table_schema(schema).field("x").type)})
    found, _ = partition_spec(schema, items("x"))
    parts = {repr(record[0]): [repr(v) for v in part["x"].to_pylist()] for record, part in split(rows, schema, found)}
    assert parts == {
        "0.0": ["0.0", "-0.0", "-0.0"], "None": ["None"], "nan": ["nan"], "-1.5": ["-1.5"], "inf": ["inf"],
    }  # fmt: skip


def test_several_fields_and_nested_sources() -> None:
    rows = [{"timestamp": datetime(2020, 1, 1, h, tzinfo=UTC), "topic": t} for h, t in ((0, "a"), (1, "b"), (0, "a"))]
    found = spec("hour(_kafka.timestamp), _kafka.topic")
    assert [field.name for field in found.fields] == ["_kafka_timestamp_hour", "_kafka_topic"]
    parts = split(table(_kafka=[*rows, None], id=[1, 2, 3, 4]), SCHEMA, found)
    assert [(tuple(record[i] for i in range(2)), part["id"].to_pylist()) for record, part in parts] == [
        ((438288, "a"), [1, 3]),
        ((438289, "b"), [2]),
        ((None, None), [4]),
    ]


def test_unpartitioned() -> None:
    whole = table(id=[1, 2])
    assert split(whole, SCHEMA, spec("")) == [(Record(), whole)]


def test_names_are_pyicebergs() -> None:
    text = "id, bucket(n, 16), truncate(name, 3), day(ts), YEAR(local)"
    assert [f.name for f in spec(text).fields] == ["id", "n_bucket_16", "name_trunc_3", "ts_day", "local_year"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("gone", "no column gone"),
        ("day(name)", "column name is string"),
        ("bucket(flag, 2)", "column flag is boolean"),
        ("truncate(ts, 2)", "column ts is timestamptz"),
        ("_kafka", "struct"),
        ("tags", "list"),
        ("tags.element.t", "lies in a list or map"),
        ("hour(day_of)", "column day_of is date"),
        ("hour(TS)", "has a time partition already"),
        ("truncate(small, 1000)", "too wide for decimal"),
    ],
)
def test_an_item_that_cannot_be_waits_with_its_reason(text, why) -> None:
    found, pending = partition_spec(SCHEMA, items(f"id, day(ts), {text}"))
    assert [field.name for field in found.fields] == ["id", "ts_day"]
    ((item, reason),) = [(str(p.item), p.why) for p in pending]
    assert item == text
    assert why in reason


def test_what_is_twice_by_another_case_is_there_once() -> None:
    assert [field.name for field in spec("id, ID, bucket(n, 2), bucket(N, 2)").fields] == ["id", "n_bucket_2"]


def test_names_are_free_and_avros() -> None:
    """Java's Iceberg refuses a partition that is named like a column, and manifests are Avro."""
    assert [field.name for field in spec("bucket(n, 5)").fields] == ["n_bucket_5_2"]
    columns = [
        NestedField(1, "größe", LongType()),
        NestedField(2, "1st", LongType()),
        NestedField(3, "gr__e", LongType()),
    ]
    found, _ = partition_spec(Schema(*columns), partition_fields("größe, 1st, bucket(größe, 2)"))
    assert [field.name for field in found.fields] == ["gr__e_2", "_1st", "gr__e_bucket_2"]


def test_too_many_partitions_are_refused_before_any_file(monkeypatch) -> None:
    monkeypatch.setattr(partition, "PARTITIONS_MAX", 3)
    split(table(id=[1, 2, 3]), SCHEMA, spec("id"))
    with pytest.raises(NotPartitionable, match="4 partitions"):
        split(table(id=[1, 2, 3, 4]), SCHEMA, spec("id"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [("blue", "name=blue"), ("a b", ""), ("ü", ""), ("a/b", ""), ("x" * 195, "name=" + "x" * 195), ("x" * 196, "")],
)
def test_folders_are_only_what_a_path_holds_as_it_is(value, expected) -> None:
    assert folder(spec("name"), Record(value), SCHEMA) == expected


def test_rows_without_partitions_have_no_folder() -> None:
    assert folder(spec(""), Record(), SCHEMA) == ""


def made(by: str, *columns: NestedField):
    """Metadata of a new table, as a catalog makes it."""
    schema = Schema(*columns)
    found, pending = partition_spec(schema, partition_fields(by))
    return new_table_metadata(schema, found, SortOrder(), "/x", properties_of(partition_fields(by), pending))


def configured(metadata):
    return partition_fields(metadata.properties.get(CONFIGURED, ""))


def changed(metadata, *columns: NestedField):
    """After a commit that brings more columns."""
    schema = Schema(*metadata.schema().fields, *columns, schema_id=1)
    chosen = partitioning(metadata, schema, configured(metadata))
    grown = (AddSchemaUpdate(schema=schema), SetCurrentSchemaUpdate.model_validate({"schema-id": 1}))
    return update_table_metadata(metadata, (*grown, *chosen.updates)), chosen


def test_a_pending_item_joins_the_spec_with_its_column() -> None:
    metadata = made("id, day(ts), day(name)", NestedField(1, "id", LongType()))
    assert [str(p.item) for p in pending_of(metadata, configured(metadata))] == ["day(ts)", "day(name)"]
    assert partitioning(metadata, metadata.schema(), configured(metadata)) == Partitioning(metadata.spec())
    after, chosen = changed(metadata, NestedField(2, "ts", TimestamptzType()), NestedField(3, "name", StringType()))
    assert [(f.name, f.field_id) for f in after.spec().fields] == [("id", 1000), ("ts_day", 1001)]
    assert chosen.spec == after.spec() != metadata.spec()
    for requirement in chosen.requirements:
        requirement.validate(metadata)
        with pytest.raises(CommitFailedException):
            requirement.validate(after)
    assert after.properties[PENDING] == "day(name)"
    assert partitioning(after, after.schema(), configured(after)) == Partitioning(after.spec())


def test_the_property_goes_when_nothing_is_pending() -> None:
    metadata = made("day(ts)", NestedField(1, "id", LongType()))
    after, _ = changed(metadata, NestedField(2, "ts", TimestamptzType()))
    assert PENDING not in after.properties
    assert pending_of(after, configured(after)) == ()


def test_a_field_of_an_older_spec_keeps_its_id() -> None:
    metadata = made("id", NestedField(1, "id", LongType()))
    plain = AddPartitionSpecUpdate(spec=PartitionSpec(spec_id=1))
    waiting = SetPropertiesUpdate(updates={PENDING: "bucket(id, 4), id"})
    metadata = update_table_metadata(metadata, (plain, SetDefaultSpecUpdate.model_validate({"spec-id": 1}), waiting))
    chosen = partitioning(metadata, metadata.schema(), configured(metadata))
    after = update_table_metadata(metadata, chosen.updates)
    assert [(f.name, f.field_id) for f in after.spec().fields] == [("id_bucket_4", 1001), ("id", 1000)]


def test_somebody_elses_text_in_the_property_changes_nothing() -> None:
    metadata = made("id", NestedField(1, "id", LongType()))
    metadata = update_table_metadata(metadata, (SetPropertiesUpdate(updates={PENDING: "day(("}),))
    assert partitioning(metadata, metadata.schema(), configured(metadata)) == Partitioning(metadata.spec())


def test_unpartitioned_files_have_a_spec_of_their_own() -> None:
    metadata = made("id", NestedField(1, "id", LongType()))
    chosen = unpartitioned(metadata)
    after = update_table_metadata(metadata, chosen.updates)
    assert (chosen.spec.spec_id, chosen.spec.fields, after.default_spec_id) == (1, (), 0)
    assert unpartitioned(after) == Partitioning(chosen.spec)


def test_a_spec_that_was_there_before_is_taken_again() -> None:
    """Java's Iceberg keeps no two alike: it would answer with the old id, and manifests would name another."""
    metadata = made("id", NestedField(1, "id", LongType()), NestedField(2, "name", StringType()))
    both = PartitionSpec(*metadata.spec().fields, PartitionField(2, 1001, IdentityTransform(), "name"), spec_id=1)
    waiting = SetPropertiesUpdate(updates={PENDING: "name"})
    metadata = update_table_metadata(metadata, (AddPartitionSpecUpdate(spec=both), waiting))
    chosen = partitioning(metadata, metadata.schema(), configured(metadata))
    after = update_table_metadata(metadata, chosen.updates)
    assert (chosen.spec, after.default_spec_id, len(after.partition_specs)) == (both, 1, 2)
    assert PENDING not in after.properties


COLUMNS = (
    NestedField(1, "id", LongType()),
    NestedField(2, "ts", TimestamptzType()),
    NestedField(3, "name", StringType()),
)


def again(metadata, by: str):
    """After a commit of rows by another config."""
    chosen = partitioning(metadata, metadata.schema(), partition_fields(by))
    after = update_table_metadata(metadata, chosen.updates)
    assert after.spec() == chosen.spec
    return after, chosen


def test_a_config_that_changes_changes_the_spec() -> None:
    metadata = made("day(ts), name", *COLUMNS)
    after, chosen = again(metadata, "hour(ts), name, bucket(id, 4)")
    # What was there before keeps its id and its name.
    assert [(f.name, f.field_id) for f in after.spec().fields] == [
        ("ts_hour", 1002), ("name", 1001), ("id_bucket_4", 1003),
    ]  # fmt: skip
    assert [spec.spec_id for spec in after.partition_specs] == [0, 1]
    assert after.properties[CONFIGURED] == "[hour(ts), name, bucket(id, 4)]"
    assert partitioning(after, after.schema(), configured(after)) == Partitioning(after.spec())
    for requirement in chosen.requirements:
        requirement.validate(metadata)
        with pytest.raises(CommitFailedException):
            requirement.validate(after)
    back, chosen = again(after, "[day(ts), name]")
    assert (back.default_spec_id, len(back.partition_specs)) == (0, 2)  # the first one, again
    none, _ = again(back, "")
    assert none.spec().is_unpartitioned() and none.properties[CONFIGURED] == "[]"
    assert [spec.is_unpartitioned() for spec in none.partition_specs] == [False, False, True]


def test_items_of_a_new_config_wait_too() -> None:
    metadata = made("id, day(missing)", *COLUMNS)
    assert metadata.properties[PENDING] == "day(missing)"
    assert [str(p.item) for p in pending_of(metadata, partition_fields("day(name), hour(ts)"))] == ["day(name)"]
    after, _ = again(metadata, "day(name), hour(ts)")
    assert [f.name for f in after.spec().fields] == ["ts_hour"]
    assert after.properties[PENDING] == "day(name)"
    same, chosen = again(after, "hour(ts)")  # the spec is as it was, but nothing waits any more
    assert (same.spec(), PENDING in same.properties, len(same.partition_specs)) == (after.spec(), False, 2)
    assert chosen.requirements


def test_a_spec_of_somebody_else_stays_until_the_config_changes() -> None:
    metadata = made("id", *COLUMNS)
    foreign = PartitionSpec(PartitionField(3, 1001, IdentityTransform(), "name"), spec_id=1)
    metadata = update_table_metadata(
        metadata, (AddPartitionSpecUpdate(spec=foreign), SetDefaultSpecUpdate.model_validate({"spec-id": 1}))
    )
    assert partitioning(metadata, metadata.schema(), partition_fields("id")) == Partitioning(foreign)
    adopted = new_table_metadata(Schema(*COLUMNS), foreign, SortOrder(), "/x", {})
    after, _ = again(adopted, "day(ts)")  # what the config was is not known: it is written down
    assert after.spec().fields == adopted.spec().fields and after.properties[CONFIGURED] == "[day(ts)]"
    after, _ = again(after, "hour(ts)")
    assert [f.name for f in after.spec().fields] == ["ts_hour"]


@given(
    st.lists(
        st.lists(
            st.sampled_from(["id", "day(ts)", "hour(ts)", "bucket(id, 4)", "name", "truncate(name, 2)"]), max_size=3
        ),
        max_size=6,
    )
)
def test_any_configs_one_after_the_other(configs: list[list[str]]) -> None:
    """Ids and names are one field's for ever, no two specs are alike, and the last config is the spec."""
    metadata = made("id", *COLUMNS)
    for by in configs:
        try:
            fields = partition_fields(", ".join(by))
        except ValueError:
            continue
        metadata, _ = again(metadata, ", ".join(by))
        alone, _ = partition_spec(metadata.schema(), fields)
        assert [(f.source_id, f.transform) for f in metadata.spec().fields] == [
            (f.source_id, f.transform) for f in alone.fields
        ]
    every = [field for spec in metadata.partition_specs for field in spec.fields]
    assert len({f.field_id for f in every}) == len({f.name for f in every}) == len(set(every))
    specs = [spec.fields for spec in metadata.partition_specs]
    assert len(specs) == len(set(specs))


def test_names_of_our_own_columns_are_no_partitions() -> None:
    """Of another layout: the topic's may change."""
    key = NestedField(1, "_kafka", StructType(NestedField(2, "key", StringType())))
    assert [f.name for f in made("_kafka.key", key).spec().fields] == ["_kafka_key_2"]
    assert [f.name for f in made("value", NestedField(1, "value", StringType())).spec().fields] == ["value"]


def test_many_pending_items_are_kept() -> None:
    items = ",".join(f"{'c' * 124}{n:02d}" for n in range(32))
    metadata = made(items, NestedField(1, "id", LongType()))
    assert len(metadata.properties[PENDING]) == len(items) > 4_000
    assert len(pending_of(metadata, configured(metadata))) == 32


def test_columns_do_not_take_names_of_partitions() -> None:
    """But the column of an identity partition has its name."""
    metadata = made("id, day(TS)", NestedField(1, "id", LongType()), NestedField(2, "ts", TimestamptzType()))
    assert names_taken(metadata) == {"ts_day"}


def test_the_hash_is_the_specifications() -> None:
    """Appendix B of the Iceberg specification: hash values of the 32-bit Murmur3."""
    known = {
        "n": (34, 2017239379),
        "id": (34, 2017239379),
        "price": (Decimal("14.20"), -500754589),
        "day_of": (date(2017, 11, 16), -653330422),
        "at": (time(22, 31, 8), -662762989),
        "ts": (datetime(2017, 11, 16, 22, 31, 8, tzinfo=UTC), -2047944441),
        "name": ("iceberg", 1210000089),
        "key": (UUID("f79c3e09-677c-4bbd-a479-3f349cb785e7"), 1488055340),
        "raw": (b"\x00\x01\x02\x03", -188683207),
    }
    for column, (value, hashed) in known.items():
        ((record, _),) = split(table(**{column: [value]}), SCHEMA, spec(f"bucket({column}, 1000)"))
        assert record[0] == (hashed & 0x7FFFFFFF) % 1000, column

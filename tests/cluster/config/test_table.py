from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.pages import code, rows

from streamlake.cluster.broker_configs import BROKER_CONFIGS
from streamlake.cluster.config.table import (
    AUTOMQ_PREFIX,
    AUTOMQ_SCHEMA_TYPE,
    PREFIX,
    TABLE_CONFIGS,
    LatestSchemaOf,
    PartitionBy,
    TableSettings,
    check_table_configs,
    partition_fields,
)
from streamlake.cluster.config.topic import TOPIC_CONFIGS, check_topic_configs
from streamlake.core.errors import Invalid

AUTOMQ_KEYS = """
    enable commit.interval.ms namespace convert.value.type convert.key.type convert.value.by_latest_schema.subject
    convert.value.by_latest_schema.message.full.name convert.key.by_latest_schema.subject
    convert.key.by_latest_schema.message.full.name transform.value.type id.columns partition.by upsert.enable cdc.field
    errors.tolerance expire.snapshot.enabled expire.snapshot.older.than.hours expire.snapshot.retain.last
"""


def settings(**configs: str) -> TableSettings:
    return TableSettings.from_configs({PREFIX + key.replace("_", "."): value for key, value in configs.items()})


def test_defaults() -> None:
    assert TableSettings.from_configs({}) == TableSettings(
        enable=False,
        catalog="",
        namespace="default",
        name="",
        commit_interval_ms=10_000,
        convert_value="raw",
        convert_key="string",
        transform_value="none",
        partition_by=(),
        layout="streamlake",
        errors_tolerance="all",
    )


def test_from_configs() -> None:
    configs = {
        "retention.ms": "1",
        PREFIX + "enable": "true",
        PREFIX + "catalog": "lake",
        PREFIX + "namespace": "sales",
        PREFIX + "name": "orders_v1",
        PREFIX + "commit.interval.ms": "1000",
        PREFIX + "convert.value.type": "by_schema_id",
        PREFIX + "convert.key.type": "raw",
        PREFIX + "transform.value.type": "flatten",
        PREFIX + "partition.by": "[day(ts), bucket(id, 16)]",
        PREFIX + "layout": "automq",
        PREFIX + "errors.tolerance": "none",
    }
    assert TableSettings.from_configs(configs) == TableSettings(
        True, "lake", "sales", "orders_v1", 1000, "by_schema_id", "raw", "flatten",
        (PartitionBy("ts", "day"), PartitionBy("id", "bucket", 16)), "automq", "none",
    )  # fmt: skip


@pytest.mark.parametrize("key", AUTOMQ_KEYS.split())
def test_every_key_of_automq_is_an_alias(key: str) -> None:
    assert TOPIC_CONFIGS.canonical(AUTOMQ_PREFIX + key) == PREFIX + key
    default = TOPIC_CONFIGS[PREFIX + key].default
    assert check_topic_configs({AUTOMQ_PREFIX + key: default}) == {PREFIX + key: default}


def test_a_key_and_its_alias_must_agree() -> None:
    assert check_topic_configs({PREFIX + "enable": "true", AUTOMQ_PREFIX + "enable": "true"}) == {
        PREFIX + "enable": "true"
    }
    with pytest.raises(Invalid, match="given twice"):
        check_topic_configs({PREFIX + "enable": "true", AUTOMQ_PREFIX + "enable": "false"})


def test_the_deprecated_schema_type() -> None:
    assert check_topic_configs({AUTOMQ_SCHEMA_TYPE: "none"}) == {}
    assert check_topic_configs({AUTOMQ_SCHEMA_TYPE: "schemaless"}) == {
        PREFIX + "convert.value.type": "string",
        PREFIX + "convert.key.type": "string",
    }
    schema = {
        PREFIX + "convert.value.type": "by_schema_id",
        PREFIX + "convert.key.type": "string",
        PREFIX + "transform.value.type": "flatten",
    }
    assert check_topic_configs({AUTOMQ_SCHEMA_TYPE: "schema"}) == schema
    assert check_topic_configs({AUTOMQ_SCHEMA_TYPE: "schema", **schema}) == schema
    with pytest.raises(Invalid, match="must be none or schemaless or schema"):
        check_topic_configs({AUTOMQ_SCHEMA_TYPE: "avro"})
    for prefix in (PREFIX, AUTOMQ_PREFIX):
        with pytest.raises(Invalid, match="but it is set to 'raw'"):
            check_topic_configs({AUTOMQ_SCHEMA_TYPE: "schema", prefix + "convert.value.type": "raw"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id.columns", "[id]"),
        ("upsert.enable", "true"),
        ("cdc.field", "_cdc.op"),
        ("expire.snapshot.enabled", "false"),
    ],
)
def test_what_is_not_there_yet_is_refused(key: str, value: str) -> None:
    for prefix in (PREFIX, AUTOMQ_PREFIX):
        with pytest.raises(Invalid, match="not implemented yet"):
            check_topic_configs({prefix + key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("commit.interval.ms", "0"),
        ("commit.interval.ms", "900001"),
        ("namespace", ""),
        ("namespace", "a b"),
        ("name", "a/b"),
        ("name", "x" * 250),
        ("name", "ü" * 125),
        ("namespace", "x" * 256),
        ("name", "."),
        ("name", ".."),
        ("namespace", ".."),
        ("namespace", ".a"),
        ("namespace", "a..b"),
        ("namespace", "a."),
        ("name", "a\n"),
        ("convert.key.type", "json"),
        ("errors.tolerance", "some"),
        ("layout", "mine"),
        ("enable", "on"),
    ],
)
def test_wrong_values(key: str, value: str) -> None:
    with pytest.raises(Invalid, match=r"must (be|not be|have)"):
        settings(**{key.replace(".", "_"): value})


def test_json_without_a_schema_is_for_values() -> None:
    found = settings(convert_value_type="json", transform_value_type="flatten", json_columns_max="7")
    assert (found.convert_value, found.json_columns_max) == ("json", 7)
    assert settings().json_columns_max == 500
    with pytest.raises(Invalid, match=r"convert\.key\.type"):
        settings(convert_key_type="json")
    with pytest.raises(Invalid, match=r"json\.columns\.max"):
        settings(json_columns_max="-1")


def test_the_latest_schema_of_a_subject_and_its_message() -> None:
    given = {
        "convert.value.type": "by_latest_schema", "convert.value.by_latest_schema.subject": "sales/orders",
        "convert.value.by_latest_schema.message.full.name": "shop.Order.Line", "convert.key.type": "by_latest_schema",
    }  # fmt: skip
    for prefix in (PREFIX, AUTOMQ_PREFIX):
        checked = check_topic_configs({prefix + key: value for key, value in given.items()})
        settings = TableSettings.from_configs(checked)
        assert settings.latest_value == LatestSchemaOf("sales/orders", "shop.Order.Line")
        assert settings.latest_key == LatestSchemaOf()
    for key, value in (("message.full.name", "shop..Order"), ("message.full.name", "1"), ("subject", "a\nb")):
        with pytest.raises(Invalid, match=key):
            check_topic_configs({f"{PREFIX}convert.value.by_latest_schema.{key}": value})


def test_flatten_needs_fields() -> None:
    with pytest.raises(
        Invalid, match=r"set streamlake\.table\.convert\.value\.type = by_schema_id or by_latest_schema or json too"
    ):
        settings(transform_value_type="flatten", convert_value_type="string")
    assert settings(transform_value_type="flatten", convert_value_type="by_schema_id").transform_value == "flatten"


def test_changes_of_debezium_need_fields_and_have_columns_beside_them() -> None:
    with pytest.raises(Invalid, match=r"flatten_debezium needs records with fields"):
        settings(transform_value_type="flatten_debezium", convert_value_type="raw")
    found = settings(transform_value_type="flatten_debezium", convert_value_type="json")
    assert (found.flattens, found.unwraps_debezium) == (True, True)
    assert not settings(transform_value_type="flatten", convert_value_type="json").unwraps_debezium
    changes = {"convert_value_type": "by_schema_id", "transform_value_type": "flatten_debezium"}
    checked(partition_by="day(_op_ts), _op, bucket(_source.lsn, 4), truncate(id, 5)", **changes)
    with pytest.raises(Invalid, match=r"day\(_op\) is not possible, because _op is text"):
        checked(enable="true", partition_by="day(_op)", **changes)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", ()),
        ("[]", ()),
        (" [ ] ", ()),
        ("region", (PartitionBy("region", "identity"),)),
        ("identity(region)", (PartitionBy("region", "identity"),)),
        ("[ Day ( ts ) , BUCKET(user.id,16), truncate(na-me , 4)]",
         (PartitionBy("ts", "day"), PartitionBy("user.id", "bucket", 16), PartitionBy("na-me", "truncate", 4))),
        ("year(a), month(b), hour(c)", (PartitionBy("a", "year"), PartitionBy("b", "month"), PartitionBy("c", "hour"))),
        ("day", (PartitionBy("day", "identity"),)),
        ("hour(größe)", (PartitionBy("größe", "hour"),)),
    ],
)  # fmt: skip
def test_partition_by(text: str, fields) -> None:
    assert partition_fields(text) == fields


@pytest.mark.parametrize(
    "text",
    [
        "week(ts)", "void(ts)", "day()", "day(ts", "ts)", "day ts", "day(ts))", "day((ts))", "day(a, 3)", "bucket(a)",
        "bucket(16, a)", "bucket(a, 0)", "bucket(a, -1)", "bucket(a, 2147483648)", "bucket(a, 99999999999999)",
        "bucket(a, x)", "bucket(a, 1, 2)", "a,,b", ",", "[a", "a]", "a..b", ".a", "a.", "a, day(b), a", "`a`", "a, A", "day(ts), hour(TS)", "bucket(a, 2), bucket(a, 2)",
        ", ".join(f"c{i}" for i in range(40)), "x" * 5000, "[[a]]", "day(a)day(b)",
    ],
)  # fmt: skip
def test_wrong_partition_by(text: str) -> None:
    if len(text) < 5000:  # how long a text may be is the config's rule
        with pytest.raises(ValueError):
            partition_fields(text)
    with pytest.raises(Invalid, match=r"streamlake\.table\.partition\.by = "):
        settings(partition_by=text)


columns = st.from_regex(r"[a-zA-Z0-9_\-]{1,8}(\.[a-zA-Z0-9_\-]{1,8}){0,2}", fullmatch=True)
partition_by = st.one_of(
    st.builds(PartitionBy, columns, st.sampled_from(["identity", "year", "month", "day", "hour"])),
    st.builds(PartitionBy, columns, st.sampled_from(["bucket", "truncate"]), st.integers(1, 2**31 - 1)),
)


@given(st.lists(partition_by, max_size=8, unique_by=lambda field: field.column.casefold()), st.booleans())
def test_what_is_written_is_what_is_read(fields, brackets: bool) -> None:
    text = ", ".join(str(field) for field in fields)
    assert partition_fields(f"[{text}]" if brackets else text) == tuple(fields)


@given(st.text(alphabet="ab1.,()[] _-daybucket", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        fields = partition_fields(text)
    except ValueError:
        return
    assert partition_fields(", ".join(str(field) for field in fields)) == fields


def checked(**configs: str) -> None:
    check_table_configs({PREFIX + key.replace("_", "."): value for key, value in configs.items()})


STRING = {"convert_value_type": "string"}
AVRO = {"convert_value_type": "by_schema_id"}
FLAT = {**AVRO, "transform_value_type": "flatten"}


@pytest.mark.parametrize(
    ("text", "others", "why"),
    [
        ("day(value)", STRING, "value is text: use identity or bucket or truncate"),
        ("day(value)", {}, "value is binary"),
        ("day(ts)", STRING, "there will be no column ts"),
        ("ts", {}, "there will be no column ts"),
        ("value.ts", STRING, "there will be no column value.ts"),
        ("ts", AVRO, "there will be no column ts"),
        ("day(_kafka.offset)", FLAT, "_kafka.offset is a number"),
        ("truncate(_kafka.timestamp, 2)", FLAT, "_kafka.timestamp is a time"),
        ("_KAFKA", FLAT, "_KAFKA is made of several values$"),
        ("_kafka.headers", FLAT, "several values"),
        ("_kafka.nothing", FLAT, "there will be no column"),
        ("hour(_kafka.key)", FLAT, "_kafka.key is text"),
        ("_kafka_metadata.offset", {}, "there will be no column"),
        ("hour(_kafka_metadata.timestamp)", {"layout": "automq"}, "is a number"),
        ("_kafka_header", {"layout": "automq", **FLAT}, "several values"),
        ("_kafka_value.x", {"layout": "automq"}, "there will be no column"),
        ("_kafka.offset", {"layout": "automq", **STRING}, "there will be no column"),
    ],
)
def test_a_partition_that_no_record_makes_possible_is_refused(text: str, others: dict, why: str) -> None:
    check = partial(checked, partition_by=text, **{"layout": "streamlake", **others})
    with pytest.raises(Invalid, match=why):
        check(enable="true")
    check()


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("value, bucket(_kafka.key, 4), hour(_kafka.timestamp), truncate(_kafka.topic, 3)", STRING),
        ("truncate(Value, 2), _Kafka.partition, bucket(_kafka.timestamp, 8)", {}),
        ("value, day(value.ts)", AVRO),
        ("day(ts), bucket(user.id, 16), _kafka.partition", FLAT),
        ("_kafka.key.id", {"convert_key_type": "by_schema_id"}),
        ("_kafka_metadata.partition, _kafka_key, bucket(_kafka_value, 2)", {"layout": "automq"}),
        ("day(_kafka_value.ts), _kafka_key.id", {"layout": "automq", "convert_key_type": "by_schema_id", **AVRO}),
    ],
)
def test_what_may_be_or_is_a_schemas_to_say_is_taken(text: str, others: dict) -> None:
    checked(enable="true", partition_by=text, **others)


def test_what_one_layout_allows_is_taken_where_the_broker_says_the_layout() -> None:
    for text in ("hour(_kafka.timestamp)", "_kafka_metadata.partition"):
        checked(enable="true", partition_by=text)
    with pytest.raises(Invalid, match="there will be no column"):
        checked(enable="true", partition_by="elsewhere")


def test_the_page_lists_every_config_with_its_default() -> None:
    page = rows("configuration.md", "Topic configs of tables")
    listed = [
        (code(row["topic config"]), code(row["default"]), row["on the broker"], row["AutoMQ's name"]) for row in page
    ]
    yes_no = {True: "yes", False: "no"}
    known = [(d.name, d.default, yes_no[bool(d.broker_key)], yes_no[bool(d.aliases)]) for d in TABLE_CONFIGS]
    assert sorted(listed) == sorted(known)
    assert all(d.name.startswith(PREFIX) and (d.name in BROKER_CONFIGS) == bool(d.broker_key) for d in TABLE_CONFIGS)

"""The four steps together, as task/task.py calls them: every record ends in the table or in its dead letters, once."""

import io
import itertools

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import SortOrder
from pyiceberg.table.update import update_table_metadata
from support.table_records import Registry, record, records, settings, wire

from streamlake.cluster.config.table import PREFIX, TableSettings
from streamlake.core.errors import Corrupt, Unavailable
from streamlake.table.formats.converted import Reason
from streamlake.table.formats.resolve import SchemaCache
from streamlake.table.rows import pipeline

V1 = record(("id", "int"), ("name", "string"))
V2 = {**V1, "fields": [*V1["fields"], {"name": "price", "type": ["null", "double"]}]}
V3 = record(("id", "string"))  # incompatible with both
AVRO = settings(convert_value="by_schema_id", transform_value="flatten")


class Lake:
    """A table that rounds are committed to."""

    def __init__(self, schemas=None, options=AVRO) -> None:
        self.registry = Registry(schemas or {1: V1, 2: V2, 3: V3})
        self.cache = SchemaCache(self.registry)
        self.options = options
        self.metadata = None
        self.files = []

    def round(self, sent, dead_offsets=frozenset()):
        translated = pipeline.translate(sent, self.options, self.cache, "t", dead_offsets)
        if self.metadata is None:
            first = pipeline.evolve(None, translated)
            self.metadata = new_table_metadata(first.schema, PartitionSpec(), SortOrder(), "/x", {})
        evolved = pipeline.evolve(self.metadata, translated)
        if evolved.updates:
            self.metadata = update_table_metadata(self.metadata, evolved.updates)
        table = pipeline.assemble(translated, evolved)
        self.files += pipeline.write(table, evolved.schema, self.metadata.spec(), lambda folder: folder, {})
        return evolved

    def rows(self):
        """As a reader sees them: files of older schemas lack the newer columns."""
        tables = [pq.read_table(io.BytesIO(file.data.to_pybytes())) for file in self.files]
        return pa.concat_tables(tables, promote_options="default").to_pylist() if tables else []


def offsets(rows) -> list[int]:
    return [row["_kafka"]["offset"] for row in rows]


def test_a_topic_with_every_kind_of_record() -> None:
    lake = Lake()
    good, newer = wire(1, V1, {"id": 1, "name": "a"}), wire(2, V2, {"id": 2, "name": "b", "price": 0.5})
    evolved = lake.round(
        records([good, None, b"junk", newer, wire(3, V3, {"id": "x"}), wire(9, V1, {"id": 1, "name": "a"})])
    )
    assert [(e.row, e.reason) for e in evolved.dead] == [
        (2, Reason.INVALID_VALUE),
        (4, Reason.INCOMPATIBLE_SCHEMA),
        (5, Reason.UNKNOWN_SCHEMA),
    ]
    assert evolved.dead[1].message == "column id: is int, but the new schema has string"
    rows = {row["_kafka"]["offset"]: (row["id"], row["name"], row["price"]) for row in lake.rows()}
    assert rows == {0: (1, "a", None), 1: (None, None, None), 3: (2, "b", 0.5)}


def test_key_and_value_errors_of_one_row_are_one_dead_letter() -> None:
    lake = Lake()
    evolved = lake.round(records([b"junk", wire(1, V1, {"id": 1, "name": "a"})], [b"\xff", b"\xff"]))
    assert [(e.row, e.reason) for e in evolved.dead] == [(0, Reason.INVALID_VALUE), (1, Reason.INVALID_KEY)]
    assert lake.rows() == []


def test_avro_keys_have_a_type_of_their_own_and_evolve() -> None:
    lake = Lake(
        {1: V1, 5: '"int"', 6: '"long"', 7: '"string"'},
        settings(convert_value="by_schema_id", convert_key="by_schema_id", transform_value="flatten"),
    )
    value = wire(1, V1, {"id": 1, "name": "a"})
    lake.round(records([value]))
    assert "key" not in lake.rows()[0]["_kafka"]
    lake.round(records([value, value], [wire(5, "int", 7), None], first_offset=1))
    evolved = lake.round(records([value, value], [wire(6, "long", 2**40), wire(7, "string", "x")], first_offset=3))
    assert [(e.row, e.reason) for e in evolved.dead] == [(1, Reason.INCOMPATIBLE_SCHEMA)]
    assert str(lake.metadata.schema().find_type("_kafka.key")) == "long"
    assert pq.read_table(io.BytesIO(lake.files[-1].data.to_pybytes())).to_pylist()[0]["_kafka"]["key"] == 2**40


@pytest.mark.parametrize("layout", ["streamlake", "automq"])
@pytest.mark.parametrize("convert", ["raw", "string"])
def test_schemaless_layouts(layout, convert) -> None:
    lake = Lake(options=settings(convert_value=convert, layout=layout))
    assert lake.round(records([b"v", None], [None, b"k"])).dead == ()
    text = "v" if convert == "string" else b"v"
    name = "value" if layout == "streamlake" else "_kafka_value"
    assert [row[name] for row in lake.rows()] == [text, None]
    names = [field.name for field in lake.metadata.schema().fields]
    assert names == (
        [name, "_kafka"] if layout == "streamlake" else [name, "_kafka_header", "_kafka_key", "_kafka_metadata"]
    )


def test_layout_and_flatten_may_change_and_columns_stay() -> None:
    lake = Lake()
    sent = [wire(1, V1, {"id": 1, "name": "a"})]
    lake.round(records(sent))
    lake.options = settings(convert_value="by_schema_id", layout="automq")
    lake.round(records(sent, first_offset=1))
    names = [field.name for field in lake.metadata.schema().fields]
    assert names == ["id", "name", "_kafka", "_kafka_value", "_kafka_header", "_kafka_key", "_kafka_metadata"]


def test_dead_offsets_are_neither_rows_nor_dead_again() -> None:
    lake = Lake()
    sent = records([wire(1, V1, {"id": i, "name": "a"}) for i in range(4)] + [b"junk"], partition=2)
    evolved = lake.round(sent, {(2, 1), (1, 2), (2, 4)})
    assert offsets(lake.rows()) == [0, 2, 3]
    assert evolved.dead == ()


def test_a_decision_changes_only_with_the_schema_not_for_rows_already_dead() -> None:
    """C8: the dead-letter commit landed, the main commit did not; meanwhile the registry changed its mind."""
    lake = Lake()
    sent = records([wire(1, V1, {"id": 1, "name": "a"}), wire(9, V1, {"id": 2, "name": "b"})])
    assert [e.row for e in pipeline.translate(sent, lake.options, lake.cache, "t").dead] == [1]
    lake.registry.schemas[9] = V1
    lake.round(sent, {(0, 1)})
    assert offsets(lake.rows()) == [0]


def test_a_registry_that_is_down_stops_the_round() -> None:
    lake = Lake()
    lake.registry.down = Unavailable("down")
    with pytest.raises(Unavailable):
        lake.round(records([wire(1, V1, {"id": 1, "name": "a"})]))


def test_no_records_and_only_tombstones() -> None:
    lake = Lake()
    assert pipeline.evolve(None, pipeline.translate(records([]), AVRO, lake.cache, "t")).schema.fields == ()
    lake.round(records([None, None]))
    assert [field.name for field in lake.metadata.schema().fields] == ["_kafka"]
    lake.round(records([wire(1, V1, {"id": 1, "name": "a"})], first_offset=2))
    assert offsets(lake.rows()) == [0, 1, 2]


def test_a_broken_field_map_stops_the_table() -> None:
    lake = Lake()
    lake.round(records([wire(1, V1, {"id": 1, "name": "a"})]))
    lake.metadata.properties["streamlake.fields"] = "?"
    with pytest.raises(Corrupt):
        lake.round(records([wire(1, V1, {"id": 1, "name": "a"})]))


def test_a_header_key_that_is_not_text_makes_a_dead_letter() -> None:
    """A bad value is the graver reason; what is dead lies beside good rows of the same piece."""
    lake = Lake()
    good = wire(1, V1, {"id": 1, "name": "a"})
    headers = [[("ü", b"1")], [("h", b"1"), ("\udcff", b"1")], [], [("\udcfe", None)], [("h", None)]]
    evolved = lake.round(records([good, good, good, b"bad", good], headers=headers))
    assert offsets(lake.rows()) == [0, 2, 4]
    assert [(error.row, error.reason) for error in evolved.dead] == [(1, "invalid_header"), (3, "invalid_value")]
    assert evolved.dead[0].message == "the key of a header is not UTF-8 text (invalid start byte at byte 0): ff"
    assert [row["_kafka"]["headers"] for row in lake.rows()] == [
        [{"key": "ü", "value": b"1"}], [], [{"key": "h", "value": None}],
    ]  # fmt: skip


def test_records_of_many_chunks_and_slices() -> None:
    lake = Lake()
    parts = [
        records([wire(1, V1, {"id": i, "name": "a"})] * 3, headers=[[("h", bytes([i]))]] * 3, first_offset=10 * i)
        for i in range(3)
    ]
    lake.round(pa.concat_tables([parts[0].slice(1), parts[1], parts[2].slice(0, 1)]))
    lake.round(parts[2].slice(1, 2))
    assert offsets(lake.rows()) == [1, 2, 10, 11, 12, 20, 21, 22]
    assert [row["_kafka"]["headers"][0]["value"] for row in lake.rows()] == [
        b"\0",
        b"\0",
        b"\1",
        b"\1",
        b"\1",
        b"\2",
        b"\2",
        b"\2",
    ]


VALUES = st.sampled_from(
    [
        None,
        b"junk",
        b"\0\0\0\0\1",
        wire(1, V1, {"id": 1, "name": "a"}),
        wire(2, V2, {"id": 2, "name": "b", "price": 1.0}),
        wire(3, V3, {"id": "x"}),
        wire(9, V1, {"id": 1, "name": "a"}),
    ]
)
KEYS = st.sampled_from([None, b"k", b"\xff"])


@hypothesis_settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=25)
@given(st.lists(st.lists(st.tuples(VALUES, KEYS), max_size=6), max_size=4))
def test_every_record_is_a_row_or_dead_exactly_once(rounds) -> None:
    lake, sent, dead = Lake(), 0, []
    for batch in rounds:
        evolved = lake.round(records([v for v, _ in batch], [k for _, k in batch], first_offset=sent))
        dead += [sent + error.row for error in evolved.dead]
        sent += len(batch)
    assert sorted(offsets(lake.rows()) + dead) == list(range(sent))


@hypothesis_settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(VALUES, KEYS), min_size=1, max_size=12),
    st.lists(st.integers(0, 12), max_size=4),
    st.sampled_from([1, 200, pipeline.PIECE_BYTES]),
    st.sets(st.integers(0, 12)),
)
@example(  # the first schema of the log wins: Arrow groups by hashes, and put the second first
    [(None, None), (wire(1, V1, {"id": 1, "name": "a"}), None), (wire(3, V3, {"id": "x"}), None)], [1], 1, set()
)
def test_pieces_make_what_all_records_at_once_make(sent, cuts, piece_bytes, dead_offsets) -> None:
    whole = records([v for v, _ in sent], [k for _, k in sent])
    bounds = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    chunks = pa.concat_tables([whole.slice(a, b - a) for a, b in itertools.pairwise(bounds)])
    final = {(0, offset) for offset in dead_offsets}
    with pytest.MonkeyPatch.context() as patch:
        expected, found = Lake(), Lake()
        at_once = expected.round(whole, final)
        patch.setattr(pipeline, "PIECE_BYTES", piece_bytes)
        in_pieces = found.round(chunks, final)
    assert in_pieces.schema.as_struct() == at_once.schema.as_struct()
    assert in_pieces.dead == at_once.dead
    assert sorted(found.rows(), key=lambda row: row["_kafka"]["offset"]) == sorted(
        expected.rows(), key=lambda row: row["_kafka"]["offset"]
    )


def test_field_ids_of_nested_columns_are_in_the_file() -> None:
    point = {"type": "record", "name": "Point", "fields": [{"name": "x", "type": "int"}]}
    schema = record(("point", point), ("path", {"type": "array", "items": {"type": "record", **point, "name": "Step"}}))
    lake = Lake({1: schema})
    lake.round(records([wire(1, schema, {"point": {"x": 1}, "path": [{"x": 2}]})], [b"k"], [[("h", b"v")]]))
    written = pq.ParquetFile(pa.BufferReader(lake.files[0].data)).schema_arrow

    def ids(fields, path=()):
        for field in fields:
            here = (*path, field.name)
            yield ".".join(here), int(field.metadata[b"PARQUET:field_id"])
            below = [field.type.value_field] if pa.types.is_list(field.type) else field.type
            yield from ids(below, here) if pa.types.is_nested(field.type) else ()

    names = {lake.metadata.schema().find_column_name(id): id for _, id in ids(written)}
    assert dict(ids(written)) == names
    assert {"point.x", "path.element.x", "_kafka.headers.element.value"} <= names.keys()


def test_a_round_asks_for_an_unknown_schema_once() -> None:
    lake = Lake()
    unknown = records([wire(9, V1, {"id": 1, "name": "a"})])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "PIECE_BYTES", 1)
        evolved = lake.round(pa.concat_tables([unknown, unknown]))
    assert [e.row for e in evolved.dead] == [0, 1]
    assert lake.registry.asked == [9]


def test_a_round_of_dead_letters_only_in_a_table_with_nested_uuids() -> None:
    schema = record(("who", record(("id", {"type": "string", "logicalType": "uuid"}), name="Who")))
    lake = Lake({1: schema})
    lake.round(records([wire(1, schema, {"who": {"id": "12345678-1234-5678-1234-567812345678"}})]))
    evolved = lake.round(records([b"bad"], first_offset=1))
    assert [error.reason for error in evolved.dead] == ["invalid_value"]
    assert offsets(lake.rows()) == [0]


def test_subjects_are_named_after_the_topic_or_by_the_configs() -> None:
    schema = record(("n", "int"))
    registry = Registry({1: schema})
    registry.subjects = dict.fromkeys(("t-value", "t-key", "own"), 1)
    body = wire(1, schema, {"n": 3})[5:]
    asked = {f"{PREFIX}convert.{part}.type": "by_latest_schema" for part in ("value", "key")}
    own = {f"{PREFIX}convert.value.by_latest_schema.subject": "own"}
    for more, subjects in (({}, ["t-value", "t-key"]), (own, ["own", "t-key"])):
        registry.asked_latest.clear()
        chosen = TableSettings.from_configs({**asked, **more})
        found = pipeline.translate(records([body], [body]), chosen, SchemaCache(registry), "t")
        assert not found.dead and registry.asked_latest == subjects

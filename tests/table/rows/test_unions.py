"""Unions that grow and shrink: what Avro allows between writers goes to columns that hold both, and loses nothing."""

import io
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.types import LongType, StringType
from support.table_records import record, records, settings, wire
from table.rows.test_pipeline import Lake

from streamlake.table.formats.source_schema import SourceList, SourceMap, SourceUnion, arrow_type, source_field
from streamlake.table.rows.unions import branch_arrays, union_in

FLAT = settings(convert_value="by_schema_id", transform_value="flatten")
NULLABLE, WIDER = ["null", "string"], ["null", "string", "long"]


def of(type: Any, name: str = "v") -> dict[str, Any]:
    return record((name, type))


class Unions(Lake):
    """Reads files by field ids, as engines do: names may change, and types widen."""

    def send(self, *sent: tuple[int, Any]) -> None:
        values = [wire(id, self.registry.schemas[id], value) for id, value in sent]
        evolved = self.round(records(values, first_offset=self.sent))
        assert not evolved.dead, evolved.dead
        self.sent += len(values)

    sent = 0

    def shown(self) -> list[dict[str, Any]]:
        """The values of each record in order, without nulls and without Kafka's part."""
        names = {field.field_id: field.name for field in self.metadata.schema().fields}
        found = []
        for file in self.files:
            table = pq.read_table(io.BytesIO(file.data.to_pybytes()))
            ids = [int(field.metadata[b"PARQUET:field_id"]) for field in table.schema]
            found += table.rename_columns([names[id] for id in ids]).to_pylist()
        found.sort(key=lambda row: row["_kafka"]["offset"])
        return [{k: v for k, v in row.items() if k != "_kafka" and v is not None} for row in found]

    def columns(self) -> dict[str, str]:
        return {f.name: str(f.field_type) for f in self.metadata.schema().fields if f.name != "_kafka"}


def test_a_column_of_text_whose_union_gets_numbers() -> None:
    lake = Unions({1: of(NULLABLE), 2: of(WIDER), 3: of(["long", "null", "string", "double"])}, FLAT)
    lake.send((1, {"v": "a"}), (1, {"v": None}))
    lake.send((2, {"v": "b"}), (2, {"v": 5}), (1, {"v": "old"}), (2, {"v": None}))
    lake.send((3, {"v": 0.5}), (3, {"v": 7}), (3, {"v": "c"}), (2, {"v": 8}), (1, {"v": "d"}))
    assert lake.columns() == {"v": "string", "v_long": "long", "v_double": "double"}
    assert lake.shown() == [
        {"v": "a"}, {}, {"v": "b"}, {"v_long": 5}, {"v": "old"}, {},
        {"v_double": 0.5}, {"v_long": 7}, {"v": "c"}, {"v_long": 8}, {"v": "d"},
    ]  # fmt: skip


def test_both_in_one_round_in_either_order() -> None:
    rest = (1, {"v": "x"}), (2, {"v": "y"}), (2, {"v": 6}), (1, {"v": None}), (2, {"v": None})
    lake = Unions({1: of(NULLABLE), 2: of(WIDER)}, FLAT)
    lake.send((1, {"v": "a"}), *rest)
    assert lake.shown() == [{"v": "a"}, {"v": "x"}, {"v": "y"}, {"v_long": 6}, {}, {}]
    lake = Unions({1: of(NULLABLE), 2: of(WIDER)}, FLAT)
    lake.send((2, {"v": 5}), *rest)
    found = [row.get("v", {}) for row in lake.shown()]
    assert [(v.get("string"), v.get("long")) for v in found] == [
        (None, 5), ("x", None), ("y", None), (None, 6), (None, None), (None, None),
    ]  # fmt: skip


def test_plain_values_widen_the_branch_that_takes_them() -> None:
    lake = Unions({1: of(["null", "string", "int"]), 2: of(["null", "long"]), 3: of("boolean")}, FLAT)
    lake.send((1, {"v": 5}), (2, {"v": 2**40}))
    assert lake.shown()[1] == {"v": {"string": None, "int": 2**40}}
    evolved = lake.round(records([wire(3, of("boolean"), {"v": True})], first_offset=9))
    assert [str(e.reason) for e in evolved.dead] == ["incompatible_schema"]


def test_nested_and_in_lists_of_records() -> None:
    def schema(type: Any) -> Any:
        inner = {"type": "record", "name": "In", "fields": [{"name": "x", "type": type}]}
        return record(("s", inner), ("l", {"type": "array", "items": "In"}))

    lake = Unions({1: schema(NULLABLE), 2: schema(WIDER)}, FLAT)
    lake.send((1, {"s": {"x": "a"}, "l": [{"x": "b"}, {"x": None}]}))
    lake.send((2, {"s": {"x": 5}, "l": [{"x": "c"}, {"x": 6}]}), (1, {"s": {"x": "d"}, "l": []}))
    assert lake.shown()[1:] == [
        {"s": {"x": None, "x_long": 5}, "l": [{"x": "c", "x_long": None}, {"x": None, "x_long": 6}]},
        {"s": {"x": "d", "x_long": None}, "l": []},
    ]


def test_a_record_that_gets_company() -> None:
    point = {"type": "record", "name": "P", "fields": [{"name": "x", "type": "int"}]}
    lake = Unions({1: of(["null", point]), 2: of(["null", point, "string", {"type": "map", "values": "string"}])}, FLAT)
    lake.send((1, {"v": {"x": 1}}))
    lake.send((2, {"v": {"x": 2}}), (2, {"v": "a"}), (2, {"v": {"k": "m"}}), (1, {"v": None}))
    assert lake.shown() == [{"v": {"x": 1}}, {"v": {"x": 2}}, {"v_string": "a"}, {"v_map": [("k", "m")]}, {}]


def test_a_value_that_is_no_record() -> None:
    lake = Unions({1: NULLABLE, 2: WIDER}, settings(convert_value="by_schema_id"))
    lake.send((1, "a"), (2, 5), (2, "b"), (1, None))
    assert lake.shown() == [{"value": "a"}, {"value_long": 5}, {"value": "b"}, {}]


def test_a_union_that_is_renamed_takes_its_columns_along() -> None:
    renamed = {**of(WIDER, "w"), "fields": [{"name": "w", "type": WIDER, "aliases": ["v"]}]}
    again = {**of(WIDER, "z"), "fields": [{"name": "z", "type": WIDER, "aliases": ["w", "v"]}]}
    lake = Unions({1: of(NULLABLE), 2: renamed, 3: of(WIDER), 4: again}, FLAT)
    lake.send((1, {"v": "a"}))
    lake.send((2, {"w": "b"}), (2, {"w": 5}))
    assert lake.columns() == {"w": "string", "w_long": "long"}
    lake.send((3, {"v": 6}), (3, {"v": "c"}), (1, {"v": "d"}))  # an old writer does not rename it back
    assert lake.columns() == {"w": "string", "w_long": "long"}
    lake.send((4, {"z": 7}))
    assert lake.columns() == {"z": "string", "z_long": "long"}
    assert lake.shown() == [
        {"z": "a"}, {"z": "b"}, {"z_long": 5}, {"z_long": 6}, {"z": "c"}, {"z": "d"}, {"z_long": 7},
    ]  # fmt: skip


def test_names_beside_a_column_are_free_ones() -> None:
    lake = Unions({1: record(("v", NULLABLE), ("v_long", "int")), 2: record(("v", WIDER), ("v_long", "int"))}, FLAT)
    lake.send((1, {"v": "a", "v_long": 1}), (2, {"v": 5, "v_long": 2}))
    assert lake.shown() == [{"v": "a", "v_long": 1}, {"v_long_2": 5, "v_long": 2}]


@pytest.mark.parametrize(
    ("before", "after"), [("string", ["int", "long"]), ({"type": "array", "items": "int"}, ["int", "long"])]
)
def test_a_union_without_the_type_of_the_column_is_refused(before: Any, after: Any) -> None:
    lake = Unions({1: of(before), 2: of(after)}, FLAT)
    lake.round(records([wire(1, of(before), {"v": "a" if before == "string" else [1]})]))
    evolved = lake.round(records([wire(2, of(after), {"v": 5})], first_offset=1))
    assert [str(e.reason) for e in evolved.dead] == ["incompatible_schema"]


def array(items: Any) -> Any:
    return {"type": "array", "items": items}


def mapping(values: Any) -> Any:
    return {"type": "map", "values": values}


def test_lists_whose_elements_become_a_wider_union() -> None:
    lake = Unions({1: of(array("string")), 2: of(array(WIDER)), 3: of(array([*WIDER, "double"]))}, FLAT)
    lake.send((1, {"v": ["a", "b"]}), (1, {"v": []}))
    lake.send((2, {"v": ["c", 5, None]}), (1, {"v": ["old"]}), (2, {"v": []}))
    lake.send((3, {"v": [0.5, 6, "d"]}), (2, {"v": [7]}), (1, {"v": ["e"]}))
    assert lake.columns() == {"v": "list<string>", "v_long": "list<long>", "v_double": "list<double>"}
    assert lake.shown() == [
        {"v": ["a", "b"]}, {"v": []},
        {"v": ["c", None, None], "v_long": [None, 5, None]}, {"v": ["old"]}, {"v": [], "v_long": []},
        {"v": [None, None, "d"], "v_long": [None, 6, None], "v_double": [0.5, None, None]},
        {"v": [None], "v_long": [7]}, {"v": ["e"]},
    ]  # fmt: skip


def test_maps_whose_values_become_a_wider_union() -> None:
    lake = Unions({1: of(["null", mapping("int")]), 2: of(["null", mapping(["long", "string", "null"])])}, FLAT)
    lake.send((1, {"v": {"x": 1}}), (1, {"v": None}))
    lake.send((2, {"v": {"x": 2**40, "y": "a", "z": None}}), (2, {"v": None}), (1, {"v": {"x": 2}}))
    assert lake.columns() == {"v": "map<string, long>", "v_string": "map<string, string>"}
    assert lake.shown() == [
        {"v": [("x", 1)]}, {},
        {"v": [("x", 2**40), ("y", None), ("z", None)], "v_string": [("x", None), ("y", "a"), ("z", None)]}, {},
        {"v": [("x", 2)]},
    ]  # fmt: skip


def test_lists_of_maps_of_records_that_get_company_and_a_new_name() -> None:
    point = {"type": "record", "name": "P", "fields": [{"name": "x", "type": "int"}]}
    wider = {**of(array(mapping([point, "string"])), "w")}
    wider["fields"][0]["aliases"] = ["v"]
    lake = Unions({1: of(array(mapping(point))), 2: wider}, FLAT)
    lake.send((1, {"v": [{"a": {"x": 1}}]}))
    lake.send((2, {"w": [{"a": {"x": 2}, "b": "c"}, {}]}), (1, {"v": []}))
    assert lake.shown() == [
        {"w": [[("a", {"x": 1})]]},
        {"w": [[("a", {"x": 2}), ("b", None)], []], "w_string": [[("a", None), ("b", "c")], []]},
        {"w": []},
    ]


def test_lists_in_records_in_lists() -> None:
    def schema(items: Any) -> Any:
        return of(array({"type": "record", "name": "In", "fields": [{"name": "l", "type": array(items)}]}))

    lake = Unions({1: schema("string"), 2: schema(["string", "boolean"])}, FLAT)
    lake.send((1, {"v": [{"l": ["a"]}]}), (2, {"v": [{"l": ["b", True]}, {"l": []}]}), (1, {"v": []}))
    assert lake.shown()[1:] == [
        {"v": [{"l": ["b", None], "l_boolean": [None, True]}, {"l": [], "l_boolean": []}]}, {"v": []},
    ]  # fmt: skip


def test_a_list_that_was_a_list_of_a_union_grows_inside() -> None:
    lake = Unions(
        {1: of(array(["string", "int"])), 2: of(array(["string", "long", "boolean"])), 3: of(array("string"))}, FLAT
    )
    lake.send((1, {"v": ["a", 1]}), (2, {"v": [2**40, True]}), (3, {"v": ["b"]}))
    assert list(lake.columns()) == ["v"]
    shown = [[{k: v for k, v in item.items() if v is not None} for item in row["v"]] for row in lake.shown()]
    assert shown[0][0] == {"string": "a"} and shown[1][1] == {"boolean": True} and shown[2] == [{"string": "b"}]


@pytest.mark.parametrize("after", [array(["int", "long"]), mapping(["null", "string", "long"]), array(array(WIDER))])
def test_lists_of_unions_without_the_type_of_the_column_are_refused(after: Any) -> None:
    lake = Unions({1: of(array("string")), 2: of(after)}, FLAT)
    lake.send((1, {"v": ["a"]}))
    value: Any = {"k": 5} if after["type"] == "map" else []
    evolved = lake.round(records([wire(2, of(after), {"v": value})], first_offset=1))
    assert [str(e.reason) for e in evolved.dead] == ["incompatible_schema"]


def test_a_slice_of_a_list_has_its_own_branches() -> None:
    union = SourceUnion((source_field("string", StringType()), source_field("long", LongType())))
    items = pa.array([{"string": "a"}, {"long": 1}, {"string": "b"}], arrow_type(union))
    lists = pa.LargeListArray.from_arrays(pa.array([0, 1, 3, 3], pa.int64()), items).slice(1)
    texts, longs = branch_arrays(SourceList(union), lists)
    assert (texts.to_pylist(), longs.to_pylist()) == ([[None, "b"], []], [[1, None], []])
    assert union_in(SourceMap(StringType(), SourceList(union))) is union
    assert union_in(SourceList(StringType())) is None


TYPES = {"string": ["a", ""], "long": [5, -(2**50)], "double": [0.5, -1e300], "boolean": [True, False], "bytes": [b"x"]}


def test_a_branch_in_a_list_is_not_the_branch_without_it() -> None:
    lake = Unions({1: of(array("string")), 2: of(array(WIDER)), 3: of([array("string"), "string", "long"])}, FLAT)
    lake.send(
        (1, {"v": ["a"]}), (2, {"v": ["b", 5]}), (3, {"v": ["c"]}), (3, {"v": "d"}), (3, {"v": 6}), (2, {"v": [7]})
    )
    assert lake.columns() == {"v": "list<string>", "v_long": "list<long>", "v_string": "string", "v_long_2": "long"}
    assert lake.shown() == [
        {"v": ["a"]}, {"v": ["b", None], "v_long": [None, 5]}, {"v": ["c"]}, {"v_string": "d"}, {"v_long_2": 6},
        {"v": [None], "v_long": [7]},
    ]  # fmt: skip


@pytest.mark.parametrize("wrap", [array, mapping])
@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_lists_and_maps_of_unions_that_only_grow(seed: int, wrap: Any) -> None:
    """Each item is found again at its place, in one column or branch, whatever the order in which writers appear."""
    rng = random.Random(seed)
    names = rng.sample(list(TYPES), 4)
    unions = [["null", *names[: n + 1]] for n in range(4)]
    lake = Unions({n: of(wrap(rng.sample(union, len(union)))) for n, union in enumerate(unions)}, FLAT)
    sent = []
    for _ in range(6):
        batch = []
        for _ in range(rng.randint(1, 5)):
            id = rng.randrange(4)
            every = [None, *(v for name in unions[id][1:] for v in TYPES[name])]
            items = [rng.choice(every) for _ in range(rng.randint(0, 4))]
            batch.append((id, {"v": items if wrap is array else {f"k{n}": item for n, item in enumerate(items)}}))
            sent.append(items)
        lake.send(*batch)
    for row, items in zip(lake.shown(), sent, strict=True):
        for column in row.values():
            assert len(column) == len(items)
        for at, item in enumerate(items):
            held = [column[at] if wrap is array else column[at][1] for column in row.values()]
            found = [v for h in held for v in (h.values() if isinstance(h, dict) else [h])]
            assert [v for v in found if v is not None] == ([] if item is None else [item])


@pytest.mark.parametrize("seed", range(40))
def test_any_order_of_unions_that_only_grow(seed: int) -> None:
    """Each value is found again, in one column or branch, whatever the order in which writers appear."""
    rng = random.Random(seed)
    names = rng.sample(list(TYPES), 4)
    unions = [["null", *names[: n + 1]] for n in range(4)]
    lake = Unions({n: of(rng.sample(union, len(union))) for n, union in enumerate(unions)}, FLAT)
    sent = []
    for _ in range(6):
        batch = []
        for _ in range(rng.randint(1, 5)):
            id = rng.randrange(4)
            value = rng.choice([None, *(v for name in unions[id][1:] for v in TYPES[name])])
            batch.append((id, {"v": value}))
            sent.append(value)
        lake.send(*batch)
    for row, value in zip(lake.shown(), sent, strict=True):
        held = [v for column in row.values() for v in (column.values() if isinstance(column, dict) else [column])]
        assert [v for v in held if v is not None] == ([] if value is None else [value])

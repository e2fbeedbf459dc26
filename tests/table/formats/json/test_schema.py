import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.json_cases import CASES, PLAIN, plain_value, schema, value
from support.source_types import words

from streamlake.core.errors import Invalid
from streamlake.registry.avro.types import LEVELS_MAX, TYPES_MAX
from streamlake.registry.json_schema.documents import Documents
from streamlake.table.formats.json.infer import Inference
from streamlake.table.formats.json.native import Op, Plan
from streamlake.table.formats.json.schema import plan_of
from streamlake.table.formats.source_schema import SourceStruct

GUIDE = Path(__file__).parents[4] / "docs" / "guides" / "types.md"
LONG = {"type": "integer"}


def plan(tree: Any) -> Plan:
    return plan_of(Documents(tree, {}))


def columns(type: Any) -> dict[str, str]:
    assert isinstance(type, SourceStruct)
    return {field.segment: words(field.type) for field in type.fields}


def test_every_kind_of_property_has_its_column() -> None:
    assert columns(plan(schema()).type) == {f"f{n}": case.column for n, case in enumerate(CASES) if case.column}
    assert value().keys() == schema()["properties"].keys()


def test_every_kind_of_plain_value_has_its_column() -> None:
    inference = Inference({}, 500)
    inference.learn(json.dumps(plain_value()).encode())
    wanted = {f"p{n}": case.column for n, case in enumerate(PLAIN) if case.column}
    assert columns(inference.plan().type) == {**wanted, "_rest": "string"}


def guide() -> dict[str, str]:
    """The guide's tables, from the code."""
    by_column: dict[str, list[str]] = {}
    for case in CASES:
        shown = f"`{case.column}`" if case.column else "no column"
        by_column.setdefault(shown if not _is_text(case) else "`string`, JSON text", []).append(case.kind)
    typed = ["| JSON Schema | Iceberg |", "|---|---|"]
    typed += [f"| {'; '.join(f'`{kind}`' for kind in kinds)} | {column} |" for column, kinds in by_column.items()]
    plain = ["| first value of the key | Iceberg |", "|---|---|"]
    plain += [f"| {case.kind} | {f'`{case.column}`' if case.column else 'no column yet'} |" for case in PLAIN]
    return {"## JSON Schema": "\n".join(typed), "## Plain JSON": "\n".join(plain)}


def _is_text(case: Any) -> bool:
    return case.column == "string" and plan(case.schema).op == Op.JSON


@pytest.mark.parametrize("title", guide())
def test_the_guide_has_all_of_them(title: str) -> None:
    section = GUIDE.read_text().partition(f"\n{title}\n")[2]
    found = re.search(r"(\|.*\n)+", section)
    assert found is not None and found.group().strip() == guide()[title]


@pytest.mark.parametrize(
    ("tree", "column"),
    [
        (True, "string"),
        (False, ""),
        (LONG, "long"),
        ({"properties": {"a": LONG}}, "struct<a: long>"),
        ({"items": LONG}, "list<long>"),
        ({"type": "array", "items": {"type": "array", "items": LONG}}, "list<list<long>>"),
        ({"type": "array", "items": {"type": "null"}}, "string"),
        ({"type": "array", "items": {}}, "string"),
        ({"type": "object", "properties": {"a": False}}, "string"),
        ({"type": "object", "properties": {"a": False}, "additionalProperties": False}, ""),
        ({"type": "object", "additionalProperties": {}}, "string"),
        ({"type": "object", "additionalProperties": {"type": "null"}}, "string"),
        ({"type": "object", "properties": {"a": LONG}, "additionalProperties": LONG}, "struct<a: long>"),
        ({"type": "object", "properties": {"a": LONG}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, "struct<a: long>"),
        ({"type": "object", "properties": {"a": LONG}, "oneOf": [{"properties": {"b": LONG}}, {"type": "null"}]}, "string"),
        ({"allOf": [LONG, {"minimum": 5}]}, "long"),
        ({"allOf": [LONG, {"type": "string"}]}, ""),
        ({"allOf": [{"properties": {"a": LONG}}, {"properties": {"a": {"type": "string"}}}]}, "struct<a: string>"),
        ({"oneOf": [LONG, {"type": "number"}]}, "double"),
        ({"oneOf": [{"type": "null"}]}, ""),
        ({"oneOf": [LONG, {}]}, "string"),
        ({"enum": [None, 1, 2.5]}, "double"),
        ({"type": "string", "enum": ["a", 1]}, "string"),
        ({"$ref": "#/definitions/a", "definitions": {"a": {"properties": {"a": {"$ref": "#"}, "b": LONG}}}}, "struct<a: string, b: long>"),
        ({"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "array", "prefixItems": [LONG]}, "string"),
    ],
)  # fmt: skip
def test_other_schemas(tree: Any, column: str) -> None:
    assert words(plan(tree).type) == column


def test_descriptions_are_the_columns_docs() -> None:
    found = plan({"properties": {"a": {"type": "integer", "description": "how many"}, "b": LONG}}).type
    assert isinstance(found, SourceStruct)
    assert [field.doc for field in found.fields] == ["how many", None]


def test_schemas_too_large_for_a_table() -> None:
    assert plan({"properties": {f"p{n}": LONG for n in range(TYPES_MAX - 1)}}).type is not None
    with pytest.raises(Invalid, match="more than 5,000 types"):
        plan({"properties": {f"p{n}": LONG for n in range(TYPES_MAX)}})
    twice = {f"d{n}": {"properties": {key: {"$ref": f"#/definitions/d{n + 1}"} for key in "ab"}} for n in range(40)}
    with pytest.raises(Invalid, match="when its references are written out"):
        plan({"$ref": "#/definitions/d0", "definitions": {**twice, "d40": LONG}})
    deep: Any = LONG
    for _ in range(LEVELS_MAX):
        deep = {"properties": {"a": deep}}
    with pytest.raises(Invalid, match="more than 64 levels"):
        plan(deep)

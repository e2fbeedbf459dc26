import json
from typing import Any

import pytest

from streamlake.core.errors import Invalid
from streamlake.registry.json_schema.schema import parse_schema
from streamlake.registry.port import File

DRAFTS = (
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-06/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
)


def parsed(schema: Any, **files: Any) -> str:
    return parse_schema(json.dumps(schema), {name: File(json.dumps(each)) for name, each in files.items()}).canonical


@pytest.mark.parametrize("uri", DRAFTS)
def test_drafts(uri: str) -> None:
    good = {"$schema": uri, "type": "object", "properties": {"a": {"type": ["string", "null"]}}}
    assert json.loads(parsed(good)) == good
    with pytest.raises(Invalid, match=r"not a valid JSON Schema of draft.*: at /properties/a/type"):
        parsed({"$schema": uri, "properties": {"a": {"type": "text"}}})


@pytest.mark.parametrize("uri", ["http://json-schema.org/draft-03/schema#", "http://example.com/my", 5, ""])
def test_other_drafts(uri: Any) -> None:
    with pytest.raises(Invalid, match="is not supported: drafts are draft-04"):
        parsed({"$schema": uri})


def test_without_a_draft_it_is_the_seventh() -> None:
    parsed({"exclusiveMaximum": 5})
    with pytest.raises(Invalid, match="draft-07"):
        parsed({"exclusiveMaximum": True})


def test_what_is_the_same_schema() -> None:
    one = parse_schema('{"a": "\\u00fc",\n "type":"string"}', {})
    assert one.text.startswith('{"a": "\\u00fc",'), "the text stays as it is"
    assert parse_schema('{"a":"ü","type":"string"}', {}).canonical == one.canonical
    other = parse_schema('{"type":"string","a":"ü"}', {})
    assert other.canonical != one.canonical
    normalized = [parse_schema(each.text, {}, normalize=True) for each in (one, other)]
    assert normalized[0] == normalized[1]
    assert normalized[0].text == '{"a":"ü","type":"string"}'
    assert parse_schema("true", {}).canonical == "true"


def test_references() -> None:
    money = {"type": "object", "properties": {"units": {"type": "integer"}}, "definitions": {"nanos": {"$anchor": "n"}}}
    for reference in ("money", "money#", "money#/properties/units", "#/properties/b", "#/definitions/x", "#here"):
        parsed({"properties": {"a": {"$ref": reference}, "b": {}}, "definitions": {"x": {"$id": "#here"}}}, money=money)
    parsed({"$id": "http://example.com/order.json", "properties": {"a": {"$ref": "money"}}}, money=money)
    parsed(
        {"properties": {"a": {"$ref": "http://example.com/money"}}}, money={"$id": "http://example.com/money", **money}
    )
    parsed({"properties": {"a": {"$ref": "http://json-schema.org/draft-07/schema#"}}})
    parsed({"properties": {"a": {"$ref": "#"}}})
    parsed({"$schema": DRAFTS[4], "$defs": {"n": {"$dynamicAnchor": "n"}}, "items": {"$dynamicRef": "#n"}})
    parsed({"$schema": DRAFTS[3], "items": {"$recursiveRef": "#"}})
    nested = {"properties": {"a": {"$ref": "money"}}}
    parsed({"properties": {"a": {"$ref": "nested"}}}, nested=nested, money=money)


@pytest.mark.parametrize(
    "reference",
    ["other", "http://127.0.0.1:1/schema", "file:///etc/passwd", "#/nowhere", "#nobody", "money#/x", "http://[", "//", "#/a/~2", 5],
)  # fmt: skip
def test_references_that_lead_nowhere(reference: Any) -> None:
    """An unknown keyword is what the draft does not check."""
    with pytest.raises(Invalid, match=r"it refers to|not a valid JSON Schema"):
        parsed({"properties": {"a": {"$ref": reference}}}, money={})


def test_what_is_referred_to_must_be_a_schema() -> None:
    with pytest.raises(Invalid, match="which is no schema"):
        parsed({"$ref": "#/x", "x": 5})
    with pytest.raises(Invalid, match="not a valid JSON Schema of draft-07: at /type"):
        parsed({"properties": {"a": {"$ref": "#/x/y"}}, "x": {"y": {"type": "text"}}})
    with pytest.raises(Invalid, match="it refers to '#/nowhere'"):
        parsed({"properties": {"a": {"$ref": "#/x/y"}}, "x": {"y": {"properties": {"b": {"$ref": "#/nowhere"}}}}})


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {
            "$ref": "#/definitions/a",
            "definitions": {"a": {"$ref": "#/definitions/b"}, "b": {"$ref": "#/definitions/a"}},
        },
        {"properties": {"x": {"$ref": "#/definitions/a"}}, "definitions": {"a": {"$ref": "#/definitions/a"}}},
    ],
)
def test_references_in_a_circle(schema: Any) -> None:
    with pytest.raises(Invalid, match="leads back to itself"):
        parsed(schema)


HOSTILE = {
    "nothing": "",
    "white space": " \n",
    "a text": '"string"',
    "a number": "5",
    "an array": "[]",
    "null": "null",
    "two": "{} {}",
    "half": '{"type":',
    "nested objects": '{"not":' * 100_000,
    "nested arrays": '{"x":' + "[" * 100_000,
    "deep enough to be read": '{"not":' * 400 + "{}" + "}" * 400,
    "many elements": '{"enum":[' + "1," * 200_000 + "1]}",
    "a huge number": f'{{"maximum":{"9" * 100_000}}}',
    "a large exponent": '{"maximum":1e999}',
    "no number": '{"maximum":NaN}',
    "infinity": '{"maximum":-Infinity}',
    "a key twice": '{"type":"string","type":"integer"}',
    "a surrogate": '{"title":"\\ud800"}',
    "a surrogate as it is": '{"title":"\ud800"}',
    "a byte order mark": "\ufeff{}",
    "a null": "\0",
    "an id that is none": '{"$id":"http://[x","properties":{"a":{"$ref":"b"}}}',
    "an id of another type": '{"$id":5}',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_texts_are_refused(text: str) -> None:
    with pytest.raises(Invalid) as raised:
        parse_schema(text, {})
    assert len(str(raised.value)) < 1_200


def test_files_count_too() -> None:
    many = {"enum": list(range(20_000))}
    parsed(many)
    with pytest.raises(Invalid, match="more than 30,000 elements"):
        parsed(many, other=many)
    with pytest.raises(Invalid, match="not JSON"):
        parse_schema("{}", {"a": File("{")})

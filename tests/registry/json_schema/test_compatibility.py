"""The rules as a table: what a schema may become. The cases of Confluent's own tables are among them, in our words."""

import json
from typing import Any

import pytest

from streamlake.core.errors import Invalid
from streamlake.registry.json_schema.compatibility import FAULTS_MAX, incompatibilities
from streamlake.registry.levels import Level
from streamlake.registry.port import Document, File


def document(schema: Any, files: dict[str, Any] | None = None) -> Document:
    texts = {name: File(json.dumps(each)) for name, each in (files or {}).items()}
    return Document(json.dumps(schema), files=texts)


def reads(reader: Any, writer: Any) -> list[str]:
    return incompatibilities(Level.BACKWARD, document(reader), [(1, document(writer))])


def typed(name: str, **more: Any) -> dict[str, Any]:
    return {"type": name, **more}


def having(
    content: Any = None, required: tuple[str, ...] = (), patterns: Any = None, **properties: Any
) -> dict[str, Any]:
    """An object; `content`: its additionalProperties."""
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    schema |= {} if content is None else {"additionalProperties": content}
    schema |= {"required": list(required)} if required else {}
    return schema | ({"patternProperties": patterns} if patterns else {})


NUMBER, INTEGER, STRING, NULL, BOOLEAN = (typed(name) for name in ("number", "integer", "string", "null", "boolean"))
UPPER = typed("string", maxLength=8)
PATTERNS = {"^S_": STRING, "^I_": INTEGER}

READABLE = [
    ("the same", having(a=STRING), having(a=STRING)),
    ("anything", {}, having(a=STRING)),
    ("anything by true", True, {"properties": {}}),
    ("from nothing", STRING, False),
    ("another id and title", {"$id": "b", "title": "B", "description": "x", "default": 1}, {"$id": "a", "title": "A"}),
    ("an integer is a number", NUMBER, INTEGER),
    ("a type more", typed(["object", "array"]), typed(["object"])),  # type: ignore[arg-type]
    ("types in another order", typed(["null", "string"]), typed(["string", "null"])),  # type: ignore[arg-type]
    ("null too", {"anyOf": [NULL, STRING]}, STRING),
    ("a union of types is one of schemas", {"oneOf": [NULL, STRING]}, typed(["string", "null"])),  # type: ignore[arg-type]
    ("and the other way round", typed(["string", "null"]), {"oneOf": [NULL, STRING]}),  # type: ignore[arg-type]
    ("shorter texts too", typed("string", minLength=10), typed("string", minLength=11)),
    ("longer texts too", typed("string", maxLength=12), typed("string", maxLength=10)),
    ("any length", STRING, typed("string", maxLength=10, minLength=1)),
    ("a length of zero", typed("string", minLength=0), STRING),
    ("any text", STRING, typed("string", pattern="x")),
    ("a higher maximum", typed("number", maximum=11), typed("number", maximum=10)),
    ("a lower minimum", typed("number", minimum=10), typed("number", minimum=11)),
    ("excluded or not", typed("number", maximum=10), typed("number", exclusiveMaximum=10)),
    ("no maximum", NUMBER, typed("number", maximum=10, exclusiveMinimum=3)),
    ("smaller steps", typed("number", multipleOf=2), typed("number", multipleOf=10)),
    ("steps of a tenth", typed("number", multipleOf=0.1), typed("number", multipleOf=0.3)),
    ("any number", NUMBER, typed("number", multipleOf=10)),
    ("what a text is not about", typed("integer", maxLength=1), INTEGER),
    ("an enum grows", typed("string", enum=["a", "b"]), typed("string", enum=["b"])),
    ("an enum goes", STRING, typed("string", enum=["a"])),
    ("an enum without a type is of its values' types", typed(["string", "null"]), {"enum": ["a", None]}),  # type: ignore[arg-type]
    ("a constant is an enum", {"enum": [1, 2]}, {"const": 1.0}),
    ("all there is", {"enum": [True, False, None]}, typed(["boolean", "null"])),  # type: ignore[arg-type]
    ("less is forbidden", {"not": INTEGER}, {"not": NUMBER}),
    ("another type is forbidden", {"type": "string", "not": NUMBER}, STRING),
    ("optional in a closed one", having(False, a=STRING, b=NUMBER), having(False, a=STRING)),
    ("any in an open one", having(a=STRING, b={}), having(a=STRING)),
    ("required with a default in a closed one", having(False, ("b",), a=STRING, b={**NUMBER, "default": 1}), having(False, a=STRING)),
    ("required now, with a default", having(required=("a",), a={**STRING, "default": ""}), having(a=STRING)),
    ("required no more", having(a=STRING), having(required=("a",), a=STRING)),
    ("gone from an open one", having(), having(a=STRING)),
    ("gone from a closed one, which forbade it", having(False, b=STRING), having(False, a=False, b=STRING)),
    ("covered by a pattern", having(False, patterns=PATTERNS, a=STRING, I_1=NUMBER), having(False, patterns=PATTERNS, a=STRING)),
    ("covered by what may be there", having(STRING, a=STRING, b=STRING), having(STRING, a=STRING)),
    ("gone, covered by a pattern", having(False, patterns={"^I_": NUMBER}, a=STRING), having(False, a=STRING, I_1=INTEGER)),
    ("gone, covered by what may be there", having(STRING, a=STRING), having(False, a=STRING, b=STRING)),
    ("opened", having(a=STRING), having(False, a=STRING)),
    ("opened for more", having(NUMBER), having(INTEGER)),
    ("closed by the newer keyword", {"type": "object", "unevaluatedProperties": True}, having(False)),
    ("fewer needed", typed("object", dependencies={"a": ["b"]}), typed("object", dependencies={"a": ["b", "c"]})),
    ("more properties", typed("object", maxProperties=5, minProperties=1), typed("object", maxProperties=4, minProperties=2)),
    ("names of any length", typed("object"), typed("object", propertyNames={"maxLength": 3})),
    ("items of more kinds", typed("array", items=NUMBER), typed("array", items=INTEGER)),
    ("more items", typed("array", maxItems=5, minItems=1), typed("array", maxItems=4, minItems=2)),
    ("items twice", typed("array"), typed("array", uniqueItems=True)),
    ("an item more in a closed one", typed("array", items=[STRING, NUMBER], additionalItems=False), typed("array", items=[STRING], additionalItems=False)),
    ("an item less in an open one", typed("array", items=[STRING]), typed("array", items=[STRING, NUMBER])),
    ("any item in an open one", typed("array", items=[NUMBER, True]), typed("array", items=[NUMBER])),
    ("no item in a closed one", typed("array", items=[NUMBER, False], additionalItems=False), typed("array", items=[NUMBER], additionalItems=False)),
    ("no item gone from a closed one", typed("array", items=[NUMBER], additionalItems=False), typed("array", items=[NUMBER, False], additionalItems=False)),
    ("an item covered by what may be there", typed("array", items=[STRING, NUMBER], additionalItems=NUMBER), typed("array", items=[STRING], additionalItems=NUMBER)),
    ("an item gone, covered", typed("array", items=[STRING], additionalItems=NUMBER), typed("array", items=[STRING, NUMBER], additionalItems=False)),
    ("items opened", typed("array", items=[STRING], additionalItems=True), typed("array", items=[STRING, NUMBER], additionalItems=False)),
    ("a schema needed no more", {"dependencies": {"a": STRING}}, {"dependencies": {"a": STRING, "b": STRING}}),
    ("nothing needed any more", {"dependencies": {}}, {"dependencies": {"a": STRING}}),
    ("gone, covered by a union", having({"oneOf": [NULL, STRING]}, a=STRING), having(False, a=STRING, b=STRING)),
    ("a union of what may be there", having({"oneOf": [NULL, STRING]}), having(False, b={"oneOf": [NULL, STRING]})),
    ("a union without the length", {"oneOf": [NUMBER, STRING]}, typed("string", maxLength=3)),
    ("parts in another order", {"allOf": [UPPER, {"enum": ["a"]}]}, {"allOf": [{"enum": ["a"]}, UPPER]}),
    ("a part twice", {"allOf": [STRING, STRING]}, {"allOf": [STRING]}),
    ("a part less", {"allOf": [STRING]}, {"allOf": [{"enum": ["a"]}, STRING]}),
    ("a part of many", STRING, {"allOf": [{"maxLength": 5}, STRING]}),
    ("a branch more", {"oneOf": [BOOLEAN, NUMBER, UPPER]}, {"oneOf": [typed("string", maxLength=5)]}),
    ("one of, any of", {"anyOf": [STRING]}, {"oneOf": [STRING]}),
    ("any of, all of", {"allOf": [STRING]}, {"anyOf": [STRING]}),
    ("all of, one of", {"oneOf": [NUMBER, STRING]}, {"allOf": [NUMBER]}),
    ("branches of objects", {"oneOf": [having(k={"const": 1}), having(k={"const": 2}), NULL]}, {"oneOf": [having(k={"const": 2}), NULL]}),
    ("a union of one", STRING, {"oneOf": [STRING]}),
    ("a union that one type covers", NUMBER, {"anyOf": [INTEGER, NUMBER]}),
    ("a condition stays", {"if": STRING, "then": UPPER}, {"if": STRING, "then": {"maxLength": 5}}),
    ("a condition goes", {}, {"if": STRING, "then": {"maxLength": 5}}),
    ("a definition", {"$ref": "#/$defs/a", "$defs": {"a": NUMBER}}, {"$ref": "#/definitions/b", "definitions": {"b": INTEGER}}),
    ("recursion", {"properties": {"next": {"$ref": "#"}, "a": NUMBER}}, {"properties": {"next": {"$ref": "#"}, "a": INTEGER}}),
]  # fmt: skip

UNREADABLE = [
    ("another type", typed("array"), typed("object"), "/ may not be object any more"),
    ("nothing", False, STRING, "/ is not allowed any more"),
    ("an integer", INTEGER, NUMBER, "/ was a number, and is an integer now"),
    ("a type less", STRING, typed(["string", "null"]), "/ may not be null any more"),  # type: ignore[arg-type]
    ("longer texts", typed("string", minLength=11), typed("string", minLength=10), "/minLength was 10, and is 11 now"),
    ("shorter texts", typed("string", maxLength=10), typed("string", maxLength=12), "/maxLength was 12, and is 10 now"),
    ("a length", typed("string", maxLength=10), STRING, "/maxLength was not there before"),
    ("a pattern", typed("string", pattern="x"), typed("string", pattern="y"), "/pattern is 'x' now"),
    ("a lower maximum", typed("number", maximum=10), typed("number", maximum=11), "/maximum was 11, and is 10 now"),
    ("a maximum excluded", typed("number", exclusiveMaximum=10), typed("number", maximum=10), "/exclusiveMaximum was not"),
    ("other steps", typed("number", multipleOf=11), typed("number", multipleOf=10), "/multipleOf is 11 now"),
    ("an enum shrinks", typed("string", enum=["a"]), typed("string", enum=["a", "b"]), '/ may not be "b" any more'),
    ("an enum comes", typed("string", enum=["a"]), STRING, "/ may only be one of 1 values now"),
    ("a constant", {"const": 1}, {"const": 2}, "/ may not be 2 any more"),
    ("more is forbidden", {"not": NUMBER}, {"not": INTEGER}, "/not forbids"),
    ("anything forbidden", {"not": {"minLength": 1}}, STRING, "/not forbids"),
    ("a property in an open one", having(a=STRING, b=NUMBER), having(a=STRING), "/properties/b may not be"),
    ("gone from a closed one", having(False), having(False, a=STRING), "/properties/a is not allowed any more"),
    ("required in a closed one", having(False, ("b",), b=NUMBER), having(False), "/properties/b is required now, and has no default"),
    ("required now", having(required=("a",), a=STRING), having(a=STRING), "/properties/a is required now"),
    ("another type of a property", having(a=NUMBER), having(a=STRING), "/properties/a may not be string"),
    ("not covered by a pattern", having(False, patterns=PATTERNS, I_1=STRING), having(False, patterns=PATTERNS), "/properties/I_1"),
    ("not covered by what may be there", having(STRING, b=NUMBER), having(STRING), "/properties/b may not be string"),
    ("gone, not covered", having(STRING), having(False, b=NUMBER), "/properties/b may not be"),
    ("closed", having(False), having(), "/additionalProperties: allows less"),
    ("narrowed", having(INTEGER), having(NUMBER), "/additionalProperties: allows less"),
    ("closed by the newer keyword", {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "unevaluatedProperties": False}, having(), "allows less"),
    ("more needed", typed("object", dependencies={"a": ["b", "c"]}), typed("object", dependencies={"a": ["b"]}), "a needs c now"),
    ("a schema needed", typed("object", dependencies={"a": {"required": ["c"]}}), typed("object"), "/dependencies/a/properties/c is required"),
    ("names", typed("object", propertyNames={"maxLength": 3}), typed("object"), "/propertyNames/maxLength"),
    ("a pattern of names", having(patterns={"x": NUMBER}), having(), "/patternProperties/x"),
    ("a pattern that takes for ever may match", having(STRING, patterns={"(a+)+$": NUMBER}), having(a=STRING), "/properties/a may not be string"),
    ("items", typed("array", items=INTEGER), typed("array", items=NUMBER), "/items was a number"),
    ("an item more in an open one", typed("array", items=[STRING, NUMBER]), typed("array", items=[STRING]), "/items/1"),
    ("an item less in a closed one", typed("array", items=[STRING], additionalItems=False), typed("array", items=[STRING, NUMBER], additionalItems=False), "/items/1 is not allowed"),
    ("an item not covered", typed("array", items=[STRING, NUMBER], additionalItems=STRING), typed("array", items=[STRING], additionalItems=STRING), "/items/1 may not be string"),
    ("an item gone, not covered", typed("array", items=[STRING], additionalItems=STRING), typed("array", items=[STRING, NUMBER], additionalItems=STRING), "/items/1 may not be"),
    ("items closed", {"additionalItems": False}, {"additionalItems": True}, "/items is not allowed any more"),
    ("other items", {"additionalItems": NUMBER}, {"additionalItems": STRING}, "/items may not be string"),
    ("fewer items", typed("array", maxItems=1), typed("array", maxItems=2), "/maxItems was 2, and is 1 now"),
    ("another property needed", {"dependencies": {"b": ["a"]}}, {"dependencies": {"a": ["b"]}}, "b needs a now"),
    ("another schema needed", {"dependencies": {"a": NUMBER}}, {"dependencies": {"a": STRING}}, "/dependencies/a may not be string"),
    ("required, and not listed", having(required=("b",), a=STRING), having(required=("a",), a=STRING), "/properties/b is required now"),
    ("unique items", typed("array", uniqueItems=True), typed("array"), "items must be unique"),
    ("an item that must be there", typed("array", contains=STRING), typed("array"), "/contains"),
    ("a part more", {"allOf": [{"enum": ["a"]}, STRING]}, {"allOf": [STRING]}, "/ may only be one of"),
    ("a part of another type", {"allOf": [NUMBER]}, {"allOf": [STRING]}, "may not be string"),
    ("a branch less", {"oneOf": [STRING]}, {"oneOf": [NUMBER, STRING]}, "/oneOf: no branch allows all"),
    ("another branch", {"oneOf": [NUMBER]}, {"oneOf": [STRING]}, "/oneOf: no branch allows all"),
    ("all of, any of", {"allOf": [STRING, NUMBER]}, {"anyOf": [STRING]}, "may not be"),
    ("a condition", {"if": STRING, "then": UPPER}, {}, "/then asks"),
    ("deep", having(a=having(b=having(c=INTEGER))), having(a=having(b=having(c=NUMBER))), "/properties/a/properties/b/properties/c was a number"),
    ("a definition", {"$ref": "#/$defs/a", "$defs": {"a": INTEGER}}, {"$ref": "#/$defs/a", "$defs": {"a": NUMBER}}, "was a number"),
    ("in a recursion", {"properties": {"next": {"$ref": "#"}, "a": INTEGER}}, {"properties": {"next": {"$ref": "#"}, "a": NUMBER}}, "/properties/a was a number"),
]  # fmt: skip


@pytest.mark.parametrize(("reader", "writer"), [c[1:] for c in READABLE], ids=[c[0] for c in READABLE])
def test_readable(reader: Any, writer: Any) -> None:
    assert reads(reader, writer) == []


@pytest.mark.parametrize(("reader", "writer", "why"), [c[1:] for c in UNREADABLE], ids=[c[0] for c in UNREADABLE])
def test_unreadable(reader: Any, writer: Any, why: str) -> None:
    (found,) = reads(reader, writer)
    assert why in found
    assert found.startswith("the new schema cannot read data written with version 1: ")


@pytest.mark.parametrize("schema", [each for case in READABLE for each in case[1:]], ids=str)
def test_any_schema_may_follow_itself(schema: Any) -> None:
    assert incompatibilities(Level.FULL_TRANSITIVE, document(schema), [(1, document(schema))] * 2) == []


def test_what_is_referred_to_counts() -> None:
    uses = having(home={"$ref": "home.json"})
    old = document(uses, {"home.json": having(id=INTEGER)})
    for kind, fault in ((NUMBER, ""), (STRING, "/properties/home/properties/id may not be")):
        why = incompatibilities(Level.BACKWARD, document(uses, {"home.json": having(id=kind)}), [(1, old)])
        assert (fault in why[0]) if fault else why == []
    assert incompatibilities(Level.FULL, document(having(home=having(id=INTEGER))), [(1, old)]) == []


def test_levels() -> None:
    first, second, third = (document(having(False, **each)) for each in ({}, {"a": STRING}, {"a": NUMBER}))
    assert incompatibilities(Level.FORWARD, second, [(1, first)]) != []
    assert incompatibilities(Level.FORWARD, first, [(1, second)]) == []
    assert incompatibilities(Level.FULL, second, [(1, first)]) != []
    assert incompatibilities(Level.BACKWARD, third, [(1, second), (2, first)]) == []
    assert len(incompatibilities(Level.BACKWARD_TRANSITIVE, third, [(1, second), (2, first)])) == 1
    assert incompatibilities(Level.NONE, third, [(1, second)]) == []


def test_beside_a_ref_nothing_counts_in_older_drafts() -> None:
    def schema(draft: str, **beside: Any) -> dict[str, Any]:
        return {"$schema": f"http://json-schema.org/{draft}/schema#", "properties": {"a": {"$ref": "#/definitions/a", **beside}}, "definitions": {"a": STRING}}  # fmt: skip

    assert reads(schema("draft-07", maxLength=1), schema("draft-07")) == []
    assert reads(schema("draft/2019-09", maxLength=1), schema("draft/2019-09")) != []


def test_keywords_of_other_drafts_say_nothing() -> None:
    old = {"$schema": "http://json-schema.org/draft-04/schema#", "const": 1, "if": 5, "prefixItems": "x"}
    assert reads({**old, "const": 2}, old) == []


def test_draft_four_excludes_by_a_flag() -> None:
    old = {"$schema": "http://json-schema.org/draft-04/schema#", "maximum": 5}
    assert reads(old, {**old, "exclusiveMaximum": True}) == []
    assert "/exclusiveMaximum was not there" in reads({**old, "exclusiveMaximum": True}, old)[0]


def test_many_faults_are_not_all_named() -> None:
    old, new = (having(**{f"p{n}": kind for n in range(500)}) for kind in (NUMBER, INTEGER))
    (why,) = reads(new, old)
    assert why.count("was a number") == FAULTS_MAX


def test_schemas_that_would_take_too_long() -> None:
    def nested(depth: int, leaf: Any) -> Any:
        return (
            leaf
            if not depth
            else {"anyOf": [having(a=nested(depth - 1, leaf), **{f"k{n}": {"const": n}}) for n in range(4)]}
        )

    with pytest.raises(Invalid, match="too many parts"):
        reads(nested(5, INTEGER), nested(5, NUMBER))
    patterns = having(patterns={f"x{n}$": {} for n in range(2_000)}, **{f"p{n}": {} for n in range(2_000)})
    with pytest.raises(Invalid, match="too many parts"):
        reads(patterns, patterns)


def test_schemas_that_refer_to_each_other_too_deeply() -> None:
    def chain(leaf: Any) -> Any:
        definitions = {f"d{n}": having(a={"$ref": f"#/definitions/d{n + 1}"}) for n in range(2_000)}
        return {"$ref": "#/definitions/d0", "definitions": {**definitions, "d2000": leaf}}

    with pytest.raises(Invalid, match="too deeply"):
        reads(chain(INTEGER), chain(NUMBER))

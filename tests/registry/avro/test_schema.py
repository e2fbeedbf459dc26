import json
import subprocess
import sys

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.core.errors import Invalid
from streamlake.registry.avro.schema import COMPARISONS_MAX, parse_schema, read_schema
from streamlake.registry.avro.types import JSON_VALUES_MAX, LEVELS_MAX


def record(*fields, name="R", **others):
    return {"type": "record", "name": name, **others, "fields": list(fields)}


def canonical(schema, **options):
    return parse_schema(json.dumps(schema), **options)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ('"string"', '"string"'),
        ('{"type" : "string"}', '"string"'),
        ('{"type":{"type":"string"}}', '"string"'),
        ('{"logicalType":"date","type":"int"}', '{"type":"int","logicalType":"date"}'),
        ('["null", {"type":"int"}]', '["null","int"]'),
        ('{"items":"int","type":"array"}', '{"type":"array","items":"int"}'),
        ('{"values":{"type":"long"},"type":"map"}', '{"type":"map","values":"long"}'),
        ('{"name":"F","size":4,"type":"fixed"}', '{"type":"fixed","name":"F","size":4}'),
        (
            '{"symbols":["A","B"],"name":"E","type":"enum","default":"A","doc":"ü"}',
            '{"type":"enum","name":"E","doc":"ü","symbols":["A","B"],"default":"A"}',
        ),
        (
            '{"fields":[{"type":"int","default":0,"name":"a","aliases":["b"]}],"aliases":["Old","z.Old"],'
            '"namespace":"x.y","name":"R","type":"record"}',
            '{"type":"record","name":"R","namespace":"x.y","aliases":["x.y.Old","z.Old"],'
            '"fields":[{"name":"a","type":"int","default":0,"aliases":["b"]}]}',
        ),
        (
            '{"type":"record","name":"a.R","namespace":"ignored","aliases":["S"],"fields":[]}',
            '{"type":"record","name":"a.R","namespace":"ignored","aliases":["a.S"],"fields":[]}',
        ),
    ],
)
def test_one_text_for_one_schema(written, text):
    assert parse_schema(written) == text
    assert parse_schema(text) == text


def test_aliases_of_nested_types_take_the_namespace_around_them():
    inner = {"type": "fixed", "name": "F", "size": 1, "aliases": ["G"]}
    text = canonical(record({"name": "a", "type": inner}, name="R", namespace="n"))
    assert '"aliases":["n.G"]' in text
    other = {**inner, "namespace": ""}
    assert '"aliases":["G"]' in canonical(record({"name": "a", "type": other}, name="R", namespace="n"))


def test_properties_count_and_are_sorted_only_on_request():
    a = {"type": "int", "z": 1, "a": 2}
    b = {"type": "int", "a": 2, "z": 1}
    assert canonical(a) != canonical(b)
    assert canonical(a, normalize=True) == canonical(b, normalize=True) == '{"type":"int","a":2,"z":1}'


@pytest.mark.parametrize(
    "field",
    [
        {"type": "double", "default": 0},
        {"type": {"type": "double"}, "default": 0},
        {"type": ["null", "string"], "default": None},
        {"type": ["string", "null"], "default": "x"},
        {"type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"type": {"type": "array", "items": "R"}},
        {"type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"type": "bytes", "default": "\u00ff"},
        {"type": "int", "order": "ignore"},
    ],
)
def test_accepted(field):
    canonical(record({"name": "f", **field}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "NaN",
        "5",
        "null",
        "{}",
        "[]",
        '"nope"',
        '{"type":"nope"}',
        '{"type":5}',
        '{"type":"array"}',
        '{"type":"map"}',
        '{"type":"fixed","name":"F"}',
        '{"type":"fixed","name":"F","size":-1}',
        '{"type":"enum","name":"E","symbols":"abc"}',
        '{"type":"enum","name":"E","symbols":["a","a"]}',
        '{"type":"enum","name":"E","symbols":["a"],"default":"b"}',
        '{"type":"error","name":"R","fields":[]}',
        '{"type":"record","name":"R"}',
        '{"type":"record","fields":[]}',
        '{"type":"record","name":"1R","fields":[]}',
        '{"type":"record","name":"a..b","fields":[]}',
        '{"type":"record","name":"int","fields":[]}',
        '{"type":"record","name":"R","namespace":5,"fields":[]}',
        '{"type":"record","name":"R","aliases":"x","fields":[]}',
        '{"type":"record","name":"R","fields":{}}',
        '{"type":"record","name":"R","fields":[5]}',
        '{"type":"record","name":"R","fields":[{"name":"a"}]}',
        '{"type":"record","name":"R","fields":[{"name":"a-b","type":"int"}]}',
        '{"type":"record","name":"R","fields":[{"name":"a","type":"int","aliases":[1]}]}',
        '{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}',
        '{"type":"record","name":"R","fields":[{"name":"a","type":"int","default":"x"}]}',
        '["int","int"]',
        '["null",["int"]]',
        '"\\ud800"',
    ],
)
def test_refused(text):
    with pytest.raises(Invalid):
        parse_schema(text)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"type":"array","items":' * 100 + '"int"' + "}" * 100,
        json.dumps({"type": "int", "p": [0] * JSON_VALUES_MAX}),
        json.dumps([{"type": "fixed", "name": f"F{n}", "size": 1} for n in range(int(COMPARISONS_MAX**0.5) + 1)]),
    ],
    ids=["brackets", "deep", "many", "union"],
)
def test_hostile_sizes_are_refused(text):
    with pytest.raises(Invalid):
        parse_schema(text)


def test_depth_that_is_allowed_works():
    arrays = (LEVELS_MAX - 1) // 2
    parse_schema('{"type":"array","items":' * arrays + '"int"' + "}" * arrays)


def test_messages_say_where():
    with pytest.raises(Invalid, match=r"schema\.fields\[0\] \(a\)\.items"):
        canonical(record({"name": "a", "type": {"type": "array"}}))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["type", "name", "fields", "items", "symbols", "size", "x"]), x), max_leaves=20))  # fmt: skip
def test_any_json_is_a_schema_or_invalid(tree):
    try:
        text = canonical(tree)
    except Invalid:
        return
    assert parse_schema(text) == text


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)
PRIMITIVES = st.sampled_from(["null", "boolean", "int", "long", "float", "double", "bytes", "string"])


@st.composite
def schemas(draw):
    """Records with unique names, so that they are valid."""
    taken = iter(f"N{n}" for n in range(1000))

    def build(depth):
        kind = draw(st.sampled_from(["primitive", "primitive", "array", "map", "record", "enum"] if depth < 4 else ["primitive"]))  # fmt: skip
        if kind == "primitive":
            return draw(PRIMITIVES)
        if kind == "array":
            return {"type": "array", "items": build(depth + 1)}
        if kind == "map":
            return {"type": "map", "values": build(depth + 1)}
        if kind == "enum":
            return {"type": "enum", "name": next(taken), "symbols": draw(st.lists(NAMES, unique=True, min_size=1))}
        names = draw(st.lists(NAMES, unique=True, max_size=3))
        return record(*[{"name": n, "type": build(depth + 1)} for n in names], name=next(taken))

    return build(0)


@given(schemas(), st.randoms())
def test_the_canonical_text_means_the_same(schema, random):
    def shuffled(node):
        if isinstance(node, dict):
            items = [(key, shuffled(value)) for key, value in node.items()]
            random.shuffle(items)
            return dict(items)
        return [shuffled(x) for x in node] if isinstance(node, list) else node

    text = canonical(shuffled(schema))
    assert text == canonical(schema)
    form = fastavro.schema.to_parsing_canonical_form
    assert form(fastavro.parse_schema(json.loads(text))) == form(fastavro.parse_schema(schema))
    read_schema(text)


def test_read_schema_refuses_what_is_none():
    with pytest.raises(Invalid):
        read_schema('{"type":"nope"}')


def test_what_avro_warns_of_is_neither_printed_nor_kept() -> None:
    """Python keeps every text it has warned of: a client that registers nonsense would fill memory and log."""
    program = (
        "from streamlake.registry.avro.schema import parse_schema\n"
        "import avro.schema\n"
        'for n in range(3): parse_schema(\'{"type": "int", "logicalType": "x%d"}\' % n)\n'
        "print(sum(type(key) is tuple for key in vars(avro.schema).get('__warningregistry__', {})))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("0\n", "")

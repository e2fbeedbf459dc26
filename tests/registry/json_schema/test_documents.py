"""Which schemas hold at a place; what is refused, tests/registry/json_schema/test_schema.py has."""

import socket
from typing import Any

import pytest

from streamlake.core.errors import Invalid
from streamlake.registry.json_schema.documents import Documents, decode
from streamlake.registry.port import File


def parts(schema: Any) -> list[Any]:
    documents = Documents(schema, {})
    return [part.schema for part in documents.parts(documents.root)]


def test_parts() -> None:
    text = {"type": "string"}
    both = {"allOf": [text, {"$ref": "#/definitions/a"}], "definitions": {"a": {"allOf": [True]}}}
    assert parts(both) == [both, text, {"allOf": [True]}, True]
    alone = {"$ref": "#/definitions/a", "maxLength": 5, "definitions": {"a": text}}
    assert parts(alone) == [text]
    newer = {"$schema": "https://json-schema.org/draft/2020-12/schema", **alone}
    assert parts(newer) == [newer, text]


def test_keywords_of_other_drafts_are_not_among_them() -> None:
    schema = {"type": "object", "prefixItems": 5}
    documents = Documents(schema, {})
    (found,) = documents.parts(documents.root)
    assert found.schema == {"type": "object"}
    assert documents.parts(documents.root)[0].schema is found.schema


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def dials(*_: object, **__: object) -> None:
        raise AssertionError("somebody opened a connection")

    monkeypatch.setattr(socket, "create_connection", dials)
    monkeypatch.setattr(socket.socket, "connect", dials)
    with pytest.raises(Invalid, match="nothing is fetched"):
        Documents({"$ref": "http://127.0.0.1:9/x"}, {}).check()


def test_a_schema_may_refer_into_a_file_by_its_own_id() -> None:
    files = {"b.json": File('{"$id": "http://x/c", "definitions": {"n": {"type": "null"}}}')}
    documents = Documents(decode('{"$id": "http://x/a", "$ref": "b.json#/definitions/n"}'), files)
    assert [part.schema for part in documents.parts(documents.root)] == [{"type": "null"}]
    documents = Documents(decode('{"$ref": "http://x/c#/definitions/n"}'), files)
    assert [part.schema for part in documents.parts(documents.root)] == [{"type": "null"}]

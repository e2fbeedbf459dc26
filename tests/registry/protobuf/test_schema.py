import base64
import subprocess
from pathlib import Path

import pytest

from streamlake.core.errors import Invalid, Unavailable
from streamlake.registry.port import Document, File
from streamlake.registry.protobuf import schema as module
from streamlake.registry.protobuf.schema import parse_schema, serialized

SCHEMAS = Path(__file__).parents[3] / "schemas"
TEXT = 'syntax = "proto3"; message M { int32 a = 1; }'


def test_a_schema() -> None:
    parsed = parse_schema((SCHEMAS / "protobuf" / "order.proto").read_text(), {})
    assert "message Order" in parsed.canonical
    assert parsed.compiled
    again = parse_schema(serialized(Document(parsed.text, parsed.compiled)), {})
    assert (again.canonical, again.compiled) == (parsed.canonical, parsed.compiled)


def test_errors_name_the_place() -> None:
    with pytest.raises(Invalid, match=r"not a valid Protobuf schema: schema.proto:2:11: \"Nobody\" is not defined"):
        parse_schema("message M {\n optional Nobody a = 1; }", {})


HOSTILE = {
    "nothing": "",
    "white space": " \n",
    "nested messages": "message M {" * 100_000,
    "nested braces": "message M { option x = " + "{" * 100_000,
    "a comment without end": "/*" * 100_000,
    "an open text": 'syntax = "' + "x" * 900_000,
    "a surrogate": "\ud800",
    "a null": "\0",
    "not a word": "\u2603",
    "base64 of noise": base64.b64encode(bytes(range(256)) * 1_000).decode(),
    "itself": 'import "schema.proto";',
    "an absolute path": 'import "/etc/passwd";',
    "huge numbers": f"message M {{ optional int32 a = {'9' * 100_000}; }}",
    "many fields of one number": "message M {" + "optional int32 a = 1;" * 40_000 + "}",
    "a range without end": "message M { reserved 1 to 536870912; }",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_texts_are_refused(text: str) -> None:
    with pytest.raises(Invalid) as raised:
        parse_schema(text, {})
    assert len(str(raised.value)) < 1_200


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "raise MemoryError"])
def test_a_helper_that_breaks_its_limits(end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dying_helper.py").write_text(f"import os\n{end}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(module, "HELPER", "dying_helper")
    with pytest.raises(Invalid, match="more memory or time"):
        parse_schema(TEXT, {})


def test_a_helper_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELPER", "streamlake.no_such_module")
    with pytest.raises(Invalid, match=r"the parser failed: .*No module named"):
        parse_schema(TEXT, {})


def test_a_helper_that_cannot_run_is_nobodys_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.001)
    with pytest.raises(Unavailable, match="not parsed within"):
        parse_schema(TEXT, {})

    def fails(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "no process")

    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(Unavailable, match="cannot be started"):
        parse_schema(TEXT, {})


@pytest.mark.parametrize("name", ["", "/a", "a//b", "../a", "a/./b", "a\\b", "a\nb", "x" * 256, "a/", "\0"])
def test_names_that_are_no_paths(name: str) -> None:
    with pytest.raises(Invalid, match=r"is not the path of a \.proto file"):
        parse_schema(TEXT, {name: File(TEXT)})


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    parse_schema(TEXT, {})
    with pytest.raises(Invalid):
        parse_schema("message", {})
    assert list(tmp_path.iterdir()) == []

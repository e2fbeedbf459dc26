import pytest

from streamlake.core.errors import Invalid
from streamlake.registry.parsed import ParsedSchemas
from streamlake.registry.port import File, Parsed


def test_a_schema_is_parsed_once() -> None:
    known, calls = ParsedSchemas(), []

    def ask(kind: str, text: str, files: dict[str, File], normalize: bool) -> None:
        known.get(kind, text, files, normalize, lambda: calls.append(text) or Parsed(text, text))  # type: ignore[func-returns-value]

    different = [
        ("AVRO", "x", {}, False),
        ("PROTOBUF", "x", {}, False),
        ("PROTOBUF", "x", {}, True),
        ("PROTOBUF", "y", {}, False),
        ("PROTOBUF", "x", {"a": File("1")}, False),
        ("PROTOBUF", "x", {"b": File("1")}, False),
        ("PROTOBUF", "x", {"a": File("2")}, False),
    ]
    for _ in range(2):
        for one in different:
            ask(*one)
    assert len(calls) == len(different)


def test_errors_are_not_kept() -> None:
    known, calls = ParsedSchemas(), []

    def fails() -> Parsed:
        calls.append(1)
        raise Invalid("no")

    for _ in range(2):
        with pytest.raises(Invalid):
            known.get("AVRO", "x", {}, False, fails)
    assert len(calls) == 2


def test_it_is_bounded_and_drops_the_least_recently_used() -> None:
    calls: list[str] = []

    def ask(known: ParsedSchemas, text: str) -> None:
        known.get("AVRO", text, {}, False, lambda: calls.append(text) or Parsed(text, "", b"12"))  # type: ignore[func-returns-value]

    for known in (ParsedSchemas(bytes_max=6), ParsedSchemas(schemas_max=2)):
        calls.clear()
        for text in "abacab":
            ask(known, text)
        assert "".join(calls) == "abcb"
    calls.clear()
    small = ParsedSchemas(bytes_max=2)
    ask(small, "a")
    ask(small, "a")
    assert calls == ["a", "a"], "larger than all that is kept"

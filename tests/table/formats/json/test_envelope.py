"""Envelopes of Debezium's JSON converter, by the kernel and by its twin."""

import json
from typing import Any

import pyarrow as pa
import pytest

from streamlake.table.formats.json import native
from streamlake.table.formats.json.envelope import read


@pytest.fixture(params=[True, False], ids=["kernel", "twin"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.setattr(native, "_kernel", None)
    elif native._kernel is None:
        pytest.skip("no C compiler")
    return bool(request.param)


def shown(values: list[bytes | None]) -> tuple[list[int], list[list[Any]], dict[int, str]]:
    found = read(pa.array([b"", *values], pa.binary()).slice(1))
    parts = [found.op, found.ts_ms, found.source, found.before, found.after]
    return found.rows.to_pylist(), [part.to_pylist() for part in parts], dict(found.errors)


BARE = b'{"before":null,"after":{"id": 1.0},"source":{"db":"x"},"op":"c","ts_ms":5,"transaction":null}'
WRAPPED = b'{"schema":{"type":"struct"},"payload":' + BARE + b"}"


def test_bare_and_wrapped_envelopes_are_alike(kernel: bool) -> None:
    parts = [["c"], [5], ['{"db":"x"}'], [None], ['{"id": 1.0}']]
    assert shown([BARE]) == ([0], parts, {})
    assert shown([WRAPPED]) == ([0], parts, {})


def test_both_kinds_in_one_piece_and_what_is_neither(kernel: bool) -> None:
    values = [BARE, None, WRAPPED, b'{"payload":{"op":"d"},"op":"x"}', b"{}", b"[1]", b'{"op":1}', b"{", b"null"]
    rows, (op, ts_ms, *_), errors = shown(values)
    assert rows == [0, 2, 3, 4, 8]
    assert (op, ts_ms) == (["c", "c", "d", None, None], [5, 5, None, None, None])
    assert set(errors) == {5, 6, 7} and "op is '1'" in errors[6]


def test_no_values(kernel: bool) -> None:
    assert shown([]) == ([], [[], [], [], [], []], {})
    assert shown([None]) == ([], [[], [], [], [], []], {})


def test_what_another_converter_wrapped_is_read_as_it_is(kernel: bool) -> None:
    """Text with every escape and a key that comes twice: the images are what is in the record, byte for byte."""
    after = '{"a":"\\u00e9\\n","a":"' + "é" + '"}'
    value = ('{"after":{"old":1},"op":"\\u0075","after":' + after + "}").encode()
    _, (op, _, _, _, found), _ = shown([value])
    assert (op, found) == (["u"], [after])
    assert json.loads(found[0]) == {"a": "é"}

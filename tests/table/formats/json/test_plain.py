"""Values without a schema as a round reads them: columns that grow with the records, and nothing lost."""

import json
from typing import Any

import pyarrow as pa
import pytest

from streamlake.core.errors import NotFound
from streamlake.table.formats.converted import Reason
from streamlake.table.formats.json import native
from streamlake.table.formats.json.infer import Inference
from streamlake.table.formats.json.plain import LEARNED_MAX, converter
from streamlake.table.formats.port import ValueReader


class NoSchemas:
    def get(self, schema_id: int) -> ValueReader:
        raise NotFound("there are none")


def convert(inference: Inference, values: list[bytes | None]) -> tuple[dict[int, Any], dict[int, str], int]:
    result = converter(inference)(pa.array([b"", *values], pa.binary()).slice(1), Reason.INVALID_VALUE, NoSchemas())
    rows: dict[int, Any] = {}
    for group in result.groups:
        group.values.validate(full=True)
        rows |= zip(group.rows.to_pylist(), group.values.to_pylist(), strict=True)
    return rows, {error.row: error.message for error in result.errors}, result.rest_rows


@pytest.fixture(params=[True, False], ids=["kernel", "twin"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.setattr(native, "_kernel", None)
    elif native._kernel is None:
        pytest.skip("no C compiler")
    return bool(request.param)


def test_rows(kernel: bool) -> None:
    values = [b'{"id":1}', None, b'{"id":"x","a":{"b":[1]}}', b"nope", b'{"id":2,"a":{"b":["y"]},"c":null}']
    rows, errors, rest_rows = convert(Inference({}, 500), values)
    assert rows == {
        0: {"id": 1, "a": None, "_rest": None},
        2: {"id": None, "a": {"b": [1]}, "_rest": '{"id":"x"}'},
        4: {"id": 2, "a": {"b": None}, "_rest": '{"a":{"b":["y"]}}'},
    }
    assert list(errors) == [3] and "not JSON" in errors[3]
    assert rest_rows == 2


def test_the_next_piece_knows_the_columns_of_the_last(kernel: bool) -> None:
    inference = Inference({}, 500)
    convert(inference, [b'{"a":1}'])
    rows, _, _ = convert(inference, [b'{"a":1.5,"b":1.5}'])
    assert rows == {0: {"a": None, "b": 1.5, "_rest": '{"a":1.5}'}}


def test_beyond_the_limit_all_goes_to_the_rest(kernel: bool) -> None:
    record = json.dumps({f"k{n}": n for n in range(20)}).encode()
    rows, errors, rest_rows = convert(Inference({}, 5), [record] * 3)
    assert (errors, rest_rows) == ({}, 3)
    for row in rows.values():
        rest = json.loads(row.pop("_rest"))
        assert row | rest == {f"k{n}": n for n in range(20)}
        assert len(row) == 5


def test_a_key_late_in_a_piece_has_its_column(kernel: bool) -> None:
    values = [b'{"a":%d}' % n for n in range(3_000)] + [b'{"a":1,"late":{"b":"x"}}']
    rows, _, rest_rows = convert(Inference({}, 500), values)
    assert (rows[3_000]["late"], rows[0]["late"], rest_rows) == ({"b": "x"}, None, 0)


def test_values_that_never_have_a_column_are_looked_at_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    if native._kernel is None:
        pytest.skip("no C compiler")
    inference = Inference({}, 500)
    calls = []
    learn = Inference.learn
    monkeypatch.setattr(Inference, "learn", lambda self, data: (calls.append(1), learn(self, data))[1])
    rows, _, rest_rows = convert(inference, [b'{"huge":99999999999999999999}'] * 3_000)
    assert (len(rows), rest_rows, len(calls)) == (3_000, 3_000, LEARNED_MAX)


def test_a_stream_of_new_keys_is_read_a_few_times_only(kernel: bool) -> None:
    values = [b'{"k%d":1}' % (n // (LEARNED_MAX - 1)) for n in range(LEARNED_MAX * 60)]
    rows, errors, rest_rows = convert(Inference({}, 500), values)
    assert (len(rows), errors) == (len(values), {})
    if kernel:
        assert 0 < rest_rows < len(values), "the last have no columns yet"
    else:
        assert rest_rows == 0
    assert all(json.loads(value or b"") == _whole(rows[n]) for n, value in enumerate(values))


def _whole(row: dict[str, Any]) -> dict[str, Any]:
    rest = json.loads(row.pop("_rest") or "{}")
    return {key: value for key, value in (row | rest).items() if value is not None}


def test_nothing_but_tombstones(kernel: bool) -> None:
    assert convert(Inference({}, 5), [None, None]) == ({}, {}, 0)


def test_a_key_that_is_no_text_stops_nothing(kernel: bool) -> None:
    """Half of a surrogate pair, as an escape: the table could not go on past such a record."""
    values = [b'{"\\ud800":1,"a":1}', b'{"b":{"\\udc00":2,"c":3}}', b'{"a":2}']
    rows, errors, rest_rows = convert(Inference({}, 500), values)
    assert (errors, rest_rows, sorted(rows)) == ({}, 2, [0, 1, 2])
    assert rows[0] == {"a": 1, "b": None, "_rest": '{"\\ud800":1}'}
    assert rows[1] == {"a": None, "b": {"c": 3}, "_rest": '{"b":{"\\udc00":2}}'}

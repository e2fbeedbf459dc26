"""The kernel and its twin take the same batches, and make the same of them."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hostile import some_batch, split
from support.records import batches_of_records

from streamlake.record import columns
from streamlake.record.batch import InvalidRecord
from streamlake.record.columns import RECORDS_SCHEMA, KernelRows, PythonRows
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch

needs_kernel = pytest.mark.skipif(columns._kernel is None, reason="no C compiler")


def tried(rows, batches):
    """What a reader makes of many (header, payload, first offset)."""
    answers: list[object] = []
    for header, payload, first in batches:
        try:
            answers.append(rows.add(header, payload, first))
        except InvalidRecord as error:
            answers.append(str(error))
    table = rows.table()
    table.validate(full=True)
    assert table.schema == RECORDS_SCHEMA
    return answers, table.to_pylist()


@settings(deadline=None)
@given(st.lists(st.tuples(batches_of_records(), st.integers(-1, 5)), max_size=4))
def test_rows_are_the_records(found):
    rows = PythonRows()
    expected = []
    for records, skip in found:
        first = records[0].offset + skip
        kept = [r for r in records if r.offset >= first]
        assert rows.add(*split(encode_batch(records)), first) == len(kept)
        expected += kept
    assert [
        (
            r["offset"],
            r["timestamp"],
            r["key"],
            r["value"],
            tuple((h["key"].decode(), h["value"]) for h in r["headers"]),
        )
        for r in rows.table().to_pylist()
    ] == expected


@needs_kernel
@settings(deadline=None)
@given(st.lists(st.tuples(batches_of_records(), st.integers(-1, 5)), max_size=4))
def test_kernel_equals_twin_on_valid_batches(found):
    batches = [(*split(encode_batch(records)), records[0].offset + skip) for records, skip in found]
    assert tried(KernelRows(0), batches) == tried(PythonRows(), batches)


@needs_kernel
@pytest.mark.parametrize("seed", range(4))
def test_kernel_equals_twin_on_hostile_batches(seed):
    rng = random.Random(seed)
    taken = refused = 0
    for _ in range(1_000):
        batches = [some_batch(rng) for _ in range(4)]
        kernel, twin = tried(KernelRows(rng.choice((0, 1000))), batches), tried(PythonRows(), batches)
        assert kernel == twin, batches
        taken += sum(isinstance(answer, int) for answer in twin[0])
        refused += sum(isinstance(answer, str) for answer in twin[0])
    assert min(taken, refused) > 1_000


@needs_kernel
def test_kernel_takes_what_is_usual_by_itself(monkeypatch):
    """Or the equality above would hold with a kernel that refuses everything."""
    monkeypatch.setattr(columns, "PythonRows", None)
    records = [
        Record(5, 1, None, b"", (("é", None), ("", b"x"))),
        Record(9, 0, b"", None),
        Record(10, 2**40, b"k" * 300, b"v" * 70_000),
    ]
    rows = KernelRows(0)
    for first in (0, 6):
        rows.add(*split(encode_batch(records)), first)
    assert rows.table()["offset"].to_pylist() == [5, 9, 10, 9, 10]


@needs_kernel
def test_what_only_the_twin_reads_keeps_its_place():
    """As a column that is longer than 31 bits in the kernel."""
    header, payload = split(encode_batch([Record(1, 0, None, b"b", (("k\udcffy", None),))]))
    rows = KernelRows(0)

    class Refusing:
        def __init__(self, kernel):
            self.take, self.kernel = kernel.take, kernel

        def __len__(self):
            return len(self.kernel)

        def add(self, header, payload, first):
            return None if header.base_offset == 1 else self.kernel.add(header, payload, first)

    rows._rows = Refusing(rows._rows)
    answers, table = tried(rows, [(msgspec.structs.replace(header, base_offset=n), payload, 0) for n in range(3)])
    assert answers == [1, 1, 1]
    assert [(r["offset"], r["headers"][0]["key"]) for r in table] == [(0, b"k\xffy"), (1, b"k\xffy"), (2, b"k\xffy")]


@needs_kernel
def test_a_count_of_records_that_are_not_there_allocates_nothing():
    header, payload = split(encode_batch([Record(0, 0, None, None)]))
    claims = msgspec.structs.replace(header, count=2**31 - 1, last_offset_delta=2**31 - 1)
    assert columns._kernel.Rows(0).add(claims, payload, 0) is None

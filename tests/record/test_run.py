"""Runs of batches: the kernel takes what its twin takes, and both copy the same."""

import random
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_kafka import signed

from streamlake.record import validate
from streamlake.record.batch import HEADER_BYTES, frames, scan_batches
from streamlake.record.compression import Compression
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch
from streamlake.record.run import Run
from streamlake.record.validate import check_batch, twin_of_scan

MIB = 1 << 20
kernel = validate._run_kernel
needs_kernel = pytest.mark.skipif(kernel is None, reason="no C compiler")
SCANS = [pytest.param(twin_of_scan, id="twin"), pytest.param(kernel and kernel.scan, id="kernel", marks=needs_kernel)]


def batch(count: int = 1, at_ms: int = 1_000, **kind: object) -> bytes:
    return encode_batch([Record(n, at_ms + n, b"k", b"v") for n in range(count)], **kind)


def of_producer(sequence: int, count: int = 1, **kind: object) -> bytes:
    return batch(count, producer_id=7, producer_epoch=1, base_sequence=sequence, **kind)


def spans_of(batches: list[bytes]) -> tuple[bytes, "array[int]"]:
    """The batches with a byte between them, and where they are."""
    spans, received = array("q"), b""
    for each in batches:
        spans.extend((len(received) + 1, len(each)))
        received += b"x" + each
    return received, spans


def stored(run: Run, base_offset: int = 100, append_time_ms: int | None = None) -> bytes:
    target = bytearray(run.size_bytes)
    run.placed(base_offset, 3, append_time_ms).copy_to(target, 0)
    return bytes(target)


def facts(run: Run) -> dict[str, object]:
    names = ("size_bytes", "unpacked_bytes", "records", "min_timestamp", "max_timestamp", "producer_id",
        "producer_epoch", "base_sequence", "first_count", "is_transactional", "is_log_append_time")  # fmt: skip
    return {name: getattr(run, name) for name in names} | {
        "batches": len(run),
        "offsets": bytes(run.base_offsets(5)),
        "last": run.last(2, 100),
    }


@pytest.mark.parametrize("scan", SCANS)
def test_batches_of_one_producer_are_one_run(scan) -> None:
    received, spans = spans_of([of_producer(0, 2), of_producer(2, 3, at_ms=9_000), of_producer(5)])
    run = scan(received, spans, MIB, MIB, MIB)
    assert (len(run), run.records, run.first_count, run.base_sequence) == (3, 6, 2, 0)
    assert (run.min_timestamp, run.max_timestamp) == (1_000, 9_002)
    assert run.last(2, 100) == [(2, 3, 102, 9_002), (5, 1, 105, 1_000)]
    assert [h.base_offset for h in scan_batches(stored(run), MIB)] == [100, 102, 105]


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize(
    "other",
    [
        batch(),
        of_producer(3),
        of_producer(1, at_ms=-1),
        of_producer(1)[:-1] + b"?",
        batch(producer_id=8, producer_epoch=1, base_sequence=1),
        batch(producer_id=7, producer_epoch=2, base_sequence=1),
        of_producer(1, transactional=True),
    ],
    ids=["no producer", "a gap", "no time", "damaged", "another producer", "another epoch", "transactional"],
)
def test_what_does_not_follow_ends_the_run(scan, other) -> None:
    received, spans = spans_of([of_producer(0), other, of_producer(1)])
    assert len(scan(received, spans, MIB, MIB, MIB)) == 1


@pytest.mark.parametrize("scan", SCANS)
def test_batches_of_a_transaction_are_a_run_of_their_own(scan) -> None:
    received, spans = spans_of([of_producer(0, transactional=True), of_producer(1, transactional=True), of_producer(2)])
    run = scan(received, spans, MIB, MIB, MIB)
    assert (len(run), run.is_transactional) == (2, True)
    assert not scan(received, spans[4:], MIB, MIB, MIB).is_transactional
    assert all(h.is_transactional for h in scan_batches(stored(run), MIB))


@pytest.mark.parametrize("scan", SCANS)
def test_limits(scan) -> None:
    packed = batch(50, compression=Compression.ZSTD)
    received, spans = spans_of([packed, packed, packed])
    unpacked_bytes = scan(received, spans[:2], MIB, MIB, MIB).unpacked_bytes
    assert unpacked_bytes == len(batch(50)) - HEADER_BYTES
    assert len(scan(received, spans, MIB, MIB, 2 * unpacked_bytes)) == 2
    assert scan(received, spans, MIB, MIB, unpacked_bytes - 1) is None
    assert scan(received, spans, MIB, len(packed) - HEADER_BYTES - 1, MIB) is None
    assert scan(received, spans, len(packed) - 1, MIB, MIB) is None
    assert len(scan(received, spans, len(packed), len(packed) - HEADER_BYTES, MIB)) == 3


@needs_kernel
def test_places_outside_of_what_was_received() -> None:
    data = batch()
    for begin, size in ((-1, 61), (0, len(data) + 1), (len(data) + 1, 0), (1, len(data)), (0, -1)):
        with pytest.raises(ValueError, match="outside"):
            kernel.scan(data, array("q", (begin, size)), MIB, MIB, MIB)


@pytest.mark.parametrize("scan", SCANS)
def test_a_run_is_copied_within_bounds(scan) -> None:
    received, spans = spans_of([batch(), batch()])
    placed = scan(received, spans, MIB, MIB, MIB).placed(5, 1)
    for at in (1, -1):
        with pytest.raises(ValueError, match="no room"):
            placed.copy_to(bytearray(len(placed)), at)
    target = bytearray(len(placed) + 1)
    placed.copy_to(target, 1)
    assert [(h.base_offset, h.leader_epoch) for h, _ in frames(memoryview(target)[1:])] == [(5, 1), (6, 1)]


@needs_kernel
def test_a_run_is_copied_once() -> None:
    placed = check_batch(batch(), MIB).placed(5, 1)
    placed.copy_to(bytearray(len(placed)), 0)
    with pytest.raises(ValueError, match="once"):
        placed.copy_to(bytearray(len(placed)), 0)


@needs_kernel
@settings(max_examples=400)
@given(st.integers(0, 1 << 62))
def test_the_kernel_takes_what_its_twin_takes(seed: int) -> None:
    rng = random.Random(seed)
    batches = []
    sequence = 0
    for _ in range(rng.choice([1, 1, 2, 4])):
        count = rng.choice([1, 2, 5])
        kind: dict[str, object] = {"compression": rng.choice([Compression.NONE, *Compression])}
        made = of_producer(sequence, count, at_ms=rng.choice([-1, 5, 1_000]), **kind)
        sequence += rng.choice([count, count, count, 1])
        changed = bytearray(made if rng.random() < 0.8 else batch(count, **kind))
        for _ in range(rng.choice([0, 0, 0, 1, 2])):
            changed[rng.randrange(len(changed))] = rng.choice([0, 1, 2, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        batches.append(signed(bytes(changed)) if rng.random() < 0.9 else bytes(changed))
    received, spans = spans_of(batches)
    limits = MIB, MIB, rng.choice([200, MIB])
    taken, expected = kernel.scan(received, spans, *limits), twin_of_scan(received, spans, *limits)
    if taken is None:
        return
    assert expected is not None and len(taken) <= len(expected)
    expected = twin_of_scan(received, spans[: 2 * len(taken)], *limits)
    assert expected is not None and facts(taken) == facts(expected)
    append_time_ms = rng.choice([None, None, 77])
    assert stored(taken, 100, append_time_ms) == stored(expected, 100, append_time_ms)

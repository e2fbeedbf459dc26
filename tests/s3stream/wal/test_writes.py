from streamlake.s3stream.wal.writes import LATENCY_BOUNDS_MS, Writes


def test_a_bound_belongs_to_its_bucket_and_buckets_add_up() -> None:
    writes = Writes()
    for latency_ms in (0.1, 0.7, 0.8, 5000):
        writes.add(latency_ms)
    counts = dict(zip((*LATENCY_BOUNDS_MS, "more"), writes.buckets, strict=True))
    assert {bound: n for bound, n in counts.items() if n} == {0.1: 1, 1: 2, "more": 1}
    assert (writes.count, round(writes.sum_ms, 1)) == (4, 5001.6)
    rows = dict(writes.cumulative())
    assert len(rows) == len(LATENCY_BOUNDS_MS) + 1
    assert (rows["0.1"], rows["0.5"], rows["1"], rows["1000"], rows["+Inf"]) == (1, 1, 3, 3, 4)

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.record.batch import RecordTooLarge, scan_batches
from streamlake.record.compression import Compression
from streamlake.record.decode import Record, decode_batch
from streamlake.record.encode import encode_batch
from streamlake.record.recompress import Codec, codec_of, recompressed, recompressed_bytes_max
from streamlake.record.validate import check_batch

CODECS = st.sampled_from(Compression)
LARGE = 1 << 24
RECORDS = st.lists(st.tuples(st.none() | st.binary(max_size=20), st.binary(max_size=200)), min_size=1, max_size=20)


@given(RECORDS, CODECS, CODECS, st.booleans())
def test_all_but_the_codec_stays(values, source, target, transactional) -> None:
    records = [Record(at, 1_000 + at, key, value) for at, (key, value) in enumerate(values)]
    producer = {"producer_id": 7, "producer_epoch": 2, "base_sequence": 5, "transactional": transactional}
    before = encode_batch(records, compression=source, **producer)
    after = recompressed(before, Codec(target), LARGE)
    (old,), (new,) = scan_batches(before, 1 << 20), scan_batches(after, 1 << 20)  # the CRC is right, too
    assert codec_of(after) == new.compression == target
    same = ("base_offset", "leader_epoch", "last_offset_delta", "base_timestamp", "max_timestamp", "producer_id",
            "producer_epoch", "base_sequence", "count", "is_transactional", "is_log_append_time", "is_control")  # fmt: skip
    assert [getattr(old, name) for name in same] == [getattr(new, name) for name in same]
    assert decode_batch(new, after, 1 << 20) == records
    check_batch(after, len(after))


@pytest.mark.parametrize("target", Compression)
@pytest.mark.parametrize("size_bytes", [0, 1, 70_000, 3_000_000])
def test_what_is_reserved_is_enough(target: Compression, size_bytes: int) -> None:
    """Bytes of chance grow with every codec."""
    before = encode_batch([Record(0, 0, None, random.Random(1).randbytes(size_bytes))])
    for source in Compression:
        packed = recompressed(before, Codec(source), LARGE)
        run = check_batch(packed, 1 << 23)
        assert len(recompressed(packed, Codec(target), LARGE)) <= recompressed_bytes_max(
            run.size_bytes, run.unpacked_bytes
        )


def test_levels() -> None:
    records = [Record(at, 0, None, b"%d" % (at % 7 * at)) for at in range(2_000)]
    before = encode_batch(records)
    for codec, low, high in ((Compression.GZIP, 1, 9), (Compression.ZSTD, -50, 19), (Compression.LZ4, 1, 12)):
        sizes = [len(recompressed(before, Codec(codec, level), LARGE)) for level in (low, high)]
        assert sizes[0] > sizes[1], codec


@pytest.mark.parametrize("codec", Compression)
def test_a_limit(codec: Compression) -> None:
    before = encode_batch([Record(0, 0, None, random.Random(1).randbytes(1_000))])
    size_bytes = len(recompressed(before, Codec(codec), LARGE))
    assert len(recompressed(before, Codec(codec), size_bytes)) == size_bytes
    with pytest.raises(RecordTooLarge, match=r"max\.message\.bytes"):
        recompressed(before, Codec(codec), size_bytes - 1)

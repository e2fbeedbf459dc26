from dataclasses import replace

from streamlake.s3stream.settings import LITTLE_BYTES, MAX_FETCHES, MIB, WHOLE_OBJECTS_MAX, StreamsSettings


def test_upload_starts_before_the_log_cache_is_full() -> None:
    assert StreamsSettings(log_cache_bytes=16 * MIB, upload_bytes=64 * MIB).upload_trigger_bytes == 8 * MIB
    assert StreamsSettings(log_cache_bytes=512 * MIB, upload_bytes=64 * MIB).upload_trigger_bytes == 64 * MIB


def test_whole_objects_are_read_only_where_the_cache_holds_several() -> None:
    assert StreamsSettings(block_cache_bytes=96 * MIB, object_bytes=32 * MIB).whole_objects_max == WHOLE_OBJECTS_MAX
    assert StreamsSettings(block_cache_bytes=95 * MIB, object_bytes=32 * MIB).whole_objects_max == 0
    settings = StreamsSettings(block_cache_bytes=96, object_bytes=32, read_ahead_bytes=1)
    assert settings.memory_bytes()["block_fetch"] == MAX_FETCHES + 2 * WHOLE_OBJECTS_MAX * 32


def test_where_requests_are_free_little_is_fetched_at_once_and_no_memory_kept_for_more() -> None:
    settings = StreamsSettings().where_requests_are_free()
    assert settings.memory_bytes()["block_fetch"] == MAX_FETCHES * LITTLE_BYTES
    assert StreamsSettings(read_ahead_bytes=5).where_requests_are_free().read_ahead_bytes == 5


def test_memory_is_the_sum_of_what_is_held() -> None:
    settings = StreamsSettings(
        log_cache_bytes=1, block_cache_bytes=2, read_ahead_bytes=3, object_bytes=4, block_bytes=5
    )
    assert replace(settings, compaction_bytes_per_s=0).memory_bytes()["compaction"] == 0
    assert settings.memory_bytes() == {
        "log_cache": 1, "block_cache": 2, "block_fetch": 3 * MAX_FETCHES, "upload": 9, "compaction": 6 + 3,
    }  # fmt: skip

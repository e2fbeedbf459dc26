import pytest

from streamlake.core.errors import Invalid
from streamlake.s3stream.store.key import checked_key


@pytest.mark.parametrize("key", ["a", "objects/00f3/17", "wal/0/1/00000000000000000042", "a.b-c_d=e/f", "x" * 255])
def test_plain_paths_are_keys(key: str) -> None:
    assert checked_key(key) == key


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a\0b", "a\nb", "ä", ".tmp/x", ".tmp", "x" * 256, "x/" * 513],
)  # fmt: skip
def test_what_could_leave_the_root_or_clash_is_none(key: str) -> None:
    with pytest.raises(Invalid):
        checked_key(key)

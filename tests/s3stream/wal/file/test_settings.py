import pytest

from streamlake.core.errors import Invalid
from streamlake.s3stream.wal.file.settings import FileWalSettings


def test_settings_are_checked() -> None:
    with pytest.raises(Invalid, match="3 segments"):
        FileWalSettings(capacity_bytes=2 << 20, segment_bytes=1 << 20)
    with pytest.raises(Invalid, match="16 KiB"):
        FileWalSettings(segment_bytes=1000)

import pytest

from streamlake.core.errors import Invalid
from streamlake.s3stream.wal.object.settings import ObjectWalSettings


def test_settings_are_checked() -> None:
    for wrong in ({"object_bytes": 100}, {"uploads_max": 0}, {"unflushed_bytes_max": 5000}, {"capacity_bytes": 5000}):
        with pytest.raises(Invalid):
            ObjectWalSettings(**{"object_bytes": 8192, **wrong})

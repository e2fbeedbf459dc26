import pytest

from streamlake.core.errors import Corrupt, Invalid
from streamlake.log import errors


def test_out_of_range_says_where_the_log_is():
    error = errors.OffsetOutOfRange(5, 10, 20)
    assert (error.offset, error.log_start_offset, error.high_watermark) == (5, 10, 20)
    assert "5" in str(error) and "10 to 20" in str(error)


@pytest.mark.parametrize("name", errors.__all__)
def test_each_is_one_of_the_core_kinds(name):
    assert issubclass(getattr(errors, name), Corrupt if name == "CorruptBatch" else Invalid)

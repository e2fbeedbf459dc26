"""What fits is taken; of what does not fit the first piece, for readers that must get one."""

import pytest

from streamlake.core.cut import cut_end


@pytest.mark.parametrize("at_least_one", [False, True])
def test_all_pieces_that_fit(at_least_one: bool) -> None:
    assert cut_end(3, 7, at_least_one) == 7
    assert cut_end(3, 4, at_least_one) == 4


@pytest.mark.parametrize("fitting_end", [3, 2, 0])
def test_nothing_fits(fitting_end: int) -> None:
    assert cut_end(3, fitting_end, True) == 4
    assert cut_end(3, fitting_end, False) <= 3

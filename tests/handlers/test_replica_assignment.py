"""Replica assignments: one replica, on this broker, and a reason for everything else."""

import pytest

from streamlake.core.errors import Invalid
from streamlake.handlers.replica_assignment import check_replicas


def test_this_broker_alone() -> None:
    check_replicas([], 3)
    check_replicas([(3,), [3]], 3)


@pytest.mark.parametrize(
    ("brokers", "says"),
    [
        ((), "at least one broker"),
        ((3, 3), "more than once"),
        ((4,), "broker 4, which is not there"),
        ((-1,), "broker -1"),
        ((3, 4), "broker 4"),
    ],
)
def test_what_is_refused(brokers: tuple[int, ...], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        check_replicas([(3,), brokers], 3)

import pytest
from coordinator.consumer.test_group import request

from streamlake.coordinator.consumer.api import NO_PLACES


@pytest.mark.parametrize("subscribed", [{"topics": ()}, {"regex": "a.*"}])
def test_a_full_request_has_all_that_a_member_is(subscribed: dict[str, object]) -> None:
    full = {"rebalance_timeout_ms": 1, "owned": NO_PLACES, **subscribed}
    assert request("m", 1, **full).is_full
    for missing in full:
        assert not request("m", 1, **{key: value for key, value in full.items() if key != missing}).is_full


def test_size() -> None:
    small = request("m", 1).size_bytes
    assert request("mm", 1, topics=("ab",), regex="c", instance_id="d", rack_id="e").size_bytes == small + 6

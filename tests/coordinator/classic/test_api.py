from streamlake.coordinator.classic.api import GroupError, State
from streamlake.protocol.errors import ErrorCode


def test_errors_have_kafkas_names():
    assert {e.name for e in GroupError} <= {e.name for e in ErrorCode}


def test_states_have_kafkas_names():
    assert {s.value for s in State} == {"Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"}

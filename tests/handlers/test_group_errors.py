"""Every error of the coordinator has a code of the same name."""

from streamlake.coordinator.classic.api import GroupError
from streamlake.handlers.group_errors import code_of
from streamlake.protocol.errors import ErrorCode


def test_names_are_the_same() -> None:
    assert {code_of(error).name for error in GroupError} == {error.name for error in GroupError}
    assert code_of(GroupError.NONE) is ErrorCode.NONE

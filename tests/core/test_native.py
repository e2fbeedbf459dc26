import logging

from streamlake.core import native


def test_a_module_that_is_there_is_loaded(caplog) -> None:
    import json

    assert native.load("json") is json
    assert not caplog.records


def test_a_missing_kernel_is_said_with_its_reason(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        assert native.load("streamlake.record.no_such_kernel") is None
    (line,) = caplog.messages
    assert "no_such_kernel" in line
    assert "Python twin" in line

import logging
import tomllib
from pathlib import Path

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


def test_the_list_of_kernels_is_what_is_compiled() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert set(native.KERNELS) == {kernel["name"] for kernel in project["tool"]["setuptools"]["ext-modules"]}


def test_compiled_tells_which_there_are(monkeypatch) -> None:
    monkeypatch.setattr(native, "KERNELS", {"json": "json", "streamlake.no_such_kernel": "none"})
    assert native.compiled() == {"json": True, "none": False}

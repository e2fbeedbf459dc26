from importlib import metadata

from streamlake.core import version


def test_the_distribution_is_the_one_that_is_installed() -> None:
    assert version.version() == metadata.version("streamlake-server")


def test_sources_that_are_not_installed_have_no_version(monkeypatch) -> None:
    monkeypatch.setattr(version, "DISTRIBUTION", "streamlake-nowhere")
    assert version.version() == "unknown"


def test_hints_name_our_distribution() -> None:
    assert version.install_hint("sql") == "pip install 'streamlake-server[sql]'"

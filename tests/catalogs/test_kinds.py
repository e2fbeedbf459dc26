import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from streamlake.catalogs.config import CatalogConfig, embedded
from streamlake.catalogs.kinds import KINDS, load
from streamlake.core.errors import Invalid


def test_loads_by_kind(tmp_path: Path) -> None:
    assert load(embedded(tmp_path, None)).name == "streamlake"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_module_that_loads_it(kind: str) -> None:
    assert callable(importlib.import_module(KINDS[kind].module).load)


@pytest.mark.parametrize(
    ("kind", "properties", "package", "extra"),
    [
        ("glue", {"warehouse": "s3://lake"}, "boto3", "glue"),
        ("s3tables", {"warehouse": "arn"}, "boto3", "glue"),
        ("rest", {"uri": "http://127.0.0.1:1", "rest.sigv4-enabled": "true"}, "boto3", "glue"),
        ("hive", {"uri": "thrift://127.0.0.1:1"}, "thrift", "hive"),
    ],
)
def test_a_missing_extra_is_named(
    kind: str, properties: dict[str, str], package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(Invalid, match=rf"needs the package {package}.*pip install 'streamlake-server\[{extra}\]'"):
        load(CatalogConfig(kind, "x", properties))


def test_the_default_installation_has_none_of_the_extras_packages() -> None:
    """It stays light: what a kind needs comes with its extra alone."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert not [d for d in project["dependencies"] if "boto" in d or "thrift" in d or "glue" in d or "hive" in d]
    for kind in KINDS.values():
        assert kind.needs is None or kind.needs[1] in project["optional-dependencies"]


def test_importing_it_does_not_import_pyiceberg() -> None:
    """The server reads catalog configurations, and must stay small."""
    code = "import sys, streamlake.catalogs.kinds, streamlake.catalogs.config, streamlake.table.task.control; sys.exit('pyiceberg' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

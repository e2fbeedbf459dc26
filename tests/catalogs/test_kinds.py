import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from streamlake.catalogs.config import CatalogConfig, embedded
from streamlake.catalogs.kinds import KINDS, load
from streamlake.core.errors import Invalid


def test_loads_by_kind(tmp_path: Path) -> None:
    assert load(embedded(tmp_path, None)).name == "streamlake"


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(Invalid, match="known are sql, rest"):
        load(CatalogConfig("hive", "x", {"uri": "x"}))


@pytest.mark.parametrize("module", KINDS.values())
def test_every_kind_has_a_module_that_loads_it(module: str) -> None:
    assert callable(importlib.import_module(module).load)


def test_importing_it_does_not_import_pyiceberg() -> None:
    """The server reads catalog configurations, and must stay small."""
    code = "import sys, streamlake.catalogs.kinds, streamlake.catalogs.config, streamlake.table.task.control; sys.exit('pyiceberg' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

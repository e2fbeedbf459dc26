"""A short crash campaign on each WAL; `make crash ROUNDS=50` is the long one."""

from pathlib import Path

import pytest
from support import crash


@pytest.mark.slow
@pytest.mark.parametrize("wal", ["file", "object"])
def test_nothing_is_lost_or_doubled_by_kill_9(tmp_path: Path, wal: str) -> None:
    totals = crash.run(tmp_path, rounds=5, seed=7, wal=wal)
    assert totals["acked"] > 1000
    assert totals["server kills"] and totals["worker kills"] and totals["copier kills"]

"""The file of what was typed."""

import os
import stat

import pytest
from prompt_toolkit.history import InMemoryHistory

from streamlake.cli import sql_history
from streamlake.cli.sql_history import HISTORY_BYTES_MAX, STATEMENT_BYTES_MAX, history_file, open_history


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "sql_history"


def kept(path):
    """Newest first."""
    return list(open_history(path).load_history_strings())


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_file() == tmp_path / "streamlake" / "sql_history"
    for unusable in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", unusable)
        monkeypatch.setenv("HOME", "/home/somebody")
        assert str(history_file()) == "/home/somebody/.local/state/streamlake/sql_history"


def test_only_its_user_may_read_it(path):
    path.parent.mkdir()
    path.touch(0o644)
    open_history(path).store_string("SELECT\n1;")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert kept(path) == ["SELECT\n1;"]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE SECRET (TYPE s3, KEY_ID 'a', SECRET 'b');",
        "ATTACH 'x' AS y (TYPE iceberg, TOKEN 'abc');",
        "SET s3_access_key_id = 'a';",
        "ATTACH 'postgres:password=abc' AS p;",
        "SELECT '" + "x" * STATEMENT_BYTES_MAX + "';",
    ],
)
def test_what_is_not_kept(path, statement):
    history = open_history(path)
    history.append_string(statement)
    assert kept(path) == []
    assert history.get_strings() == [statement], "it can be called back in this session"


def test_it_has_an_end(path):
    history = open_history(path)
    size = STATEMENT_BYTES_MAX - 100
    count = 3 * HISTORY_BYTES_MAX // size
    for number in range(count):
        history.store_string(f"SELECT {number}, '{'x' * size}';")
        assert path.stat().st_size <= HISTORY_BYTES_MAX + STATEMENT_BYTES_MAX
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    numbers = [int(text.split()[1].strip(",")) for text in kept(path)]
    assert numbers == list(range(count - 1, count - 1 - len(numbers), -1)) and len(numbers) > 5
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_what_cannot_be_written_is_said_once_and_runs_all_the_same(path, capsys):
    path.parent.write_text("no directory")
    assert isinstance(open_history(path), InMemoryHistory)
    assert "what you type is not kept" in capsys.readouterr().err
    path.parent.unlink()
    history = open_history(path)
    path.unlink()
    path.mkdir()
    history.append_string("SELECT 1;")
    assert history.get_strings() == ["SELECT 1;"]
    assert sql_history.HISTORY_BYTES_MAX

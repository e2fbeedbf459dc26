"""The prompt of `streamlake sql`, on a terminal of its own."""

import os
import stat
import sys
import uuid

import pytest
from support.lake import create_topic, produce
from support.terminal import CTRL_C, CTRL_D, ENTER, TAB, UP, Terminal
from support.wait import wait_until

from streamlake.cli.sql_shell import is_complete

READY = "streamlake>"


@pytest.fixture(scope="module")
def topic(lake):
    name = create_topic(lake, f"clishell{uuid.uuid4().hex[:6]}", convert_value_type="string")
    produce(lake, name, [b"a", b"b"])
    lake.wait_for_table(name, 2)
    return name


@pytest.fixture
def shell(lake, tmp_path):
    """Starts the shell, and waits until it is ready."""
    open_terminals = []

    def start(*options, **environ):
        own = {"STREAMLAKE_HTTP": lake.http, "XDG_STATE_HOME": str(tmp_path), "PAGER": "cat", **environ}
        command = [sys.executable, "-m", "streamlake.cli.main", "sql", *options]
        terminal = Terminal(command, {**lake.environ, **own})
        open_terminals.append(terminal)
        terminal.wait_for("tables. Statements end with ; and .help helps.", READY)
        return terminal

    yield start
    for terminal in open_terminals:
        terminal.__exit__(None, None, None)


def history(tmp_path):
    return tmp_path / "streamlake" / "sql_history"


def end(terminal, keys=CTRL_D):
    wait_until(lambda: terminal.screen.endswith(READY), lambda: f"no prompt:\n{terminal.screen}")
    terminal.press(keys)
    assert terminal.end() == 0


def test_statements_of_several_lines_errors_and_the_end(shell, topic):
    terminal = shell()
    terminal.press(f"SELECT count(*) + 40 AS answer{ENTER}FROM {topic};{ENTER}")
    terminal.wait_for("... FROM", "answer", "42", "1 row in")
    terminal.press(f"SELEC 1;{ENTER}")
    terminal.wait_for("error: Parser Error")
    terminal.press(f"FROM nowhere;{ENTER}")
    terminal.wait_for("Table with name nowhere does not exist", "Tables with a commit")
    terminal.press(f"SELECT 1 AS x; SELECT 'se;cond' AS y;{ENTER}")
    terminal.wait_for("se;cond")
    end(terminal)


def test_rows_are_as_new_as_the_statement(shell, lake):
    name = create_topic(
        lake, f"clishell{uuid.uuid4().hex[:6]}", convert_value_type="string", commit_interval_ms="900000"
    )
    produce(lake, name, [b"first"])
    lake.wait_for_table(name, 1)
    terminal = shell()
    produce(lake, name, [b"second"])
    terminal.press(f"SELECT count(*) || ' rows' AS there FROM {name};{ENTER}")
    terminal.wait_for("2 rows")


def test_completion(shell, topic):
    terminal = shell()
    terminal.press(f"FROM {topic[:-2]}{TAB}")
    terminal.wait_for(f"FROM {topic}")
    terminal.press(CTRL_C)
    terminal.press(f"sel{TAB}")
    terminal.wait_for("> select")
    terminal.press(CTRL_C)
    terminal.press(f"FROM {topic} SELECT val{TAB}")
    terminal.wait_for("value      column", "values     keyword")
    terminal.press(CTRL_C)
    terminal.press(f"SELECT _kaf{TAB}")
    terminal.wait_for("> SELECT _kaf")
    terminal.press(CTRL_C)
    terminal.press(f"FROM {topic} SELECT _kaf{TAB}")
    terminal.wait_for(f"{topic} SELECT _kafka")


def test_ctrl_c_ends_a_statement_and_not_the_shell(shell):
    terminal = shell()
    terminal.press(f"SELECT 'begun'; SELECT count(*) FROM range(100_000_000_000) a, range(1000) b;{ENTER}")
    terminal.wait_for("1 row in")
    terminal.press(CTRL_C)
    terminal.wait_for("interrupted")
    terminal.press("SELECT nonsense")
    terminal.wait_for("nonsense")
    terminal.press(CTRL_C)
    terminal.press(f"SELECT 6 * 7 AS answer;{ENTER}")
    terminal.wait_for("42")
    end(terminal)


def test_history_is_kept_without_secrets_and_for_its_user_alone(shell, tmp_path):
    terminal = shell()
    terminal.press(f"CREATE SECRET s (TYPE s3, KEY_ID 'AKIA', SECRET 'hidden-words');{ENTER}")
    terminal.wait_for("True")
    terminal.press(f"SELECT 'of before' AS x;{ENTER}")
    terminal.wait_for("1 row in")
    end(terminal, f".quit{ENTER}")
    file = history(tmp_path)
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert "of before" in file.read_text() and "hidden-words" not in file.read_text()
    terminal = shell()
    terminal.press(UP + UP)
    terminal.wait_for("> SELECT 'of before' AS x;")


def test_a_history_that_cannot_be_kept(shell, tmp_path):
    (tmp_path / "streamlake").write_text("no directory")
    terminal = shell()
    terminal.press(f"SELECT 6 * 7 AS answer;{ENTER}")
    terminal.wait_for("what you type is not kept", "42")


def test_long_results_are_paged(shell, tmp_path):
    paged = tmp_path / "paged"
    terminal = shell(PAGER=f"tee {paged}")
    terminal.press(f"SELECT 'short' AS x;{ENTER}")
    terminal.wait_for("1 row in")
    assert not paged.exists()
    terminal.press(f"SELECT x AS number, repeat('wide', 100) AS w FROM range(3) t(x);{ENTER}")
    terminal.wait_for("3 rows in")
    assert "wide" * 100 in paged.read_text(), "no line is folded"
    terminal.press(f"SELECT x AS number FROM range(200) t(x);{ENTER}")
    terminal.wait_for("200 rows in")
    assert "number" in paged.read_text() and "199" in paged.read_text()


def test_a_pager_that_is_not_there(shell):
    terminal = shell(PAGER="no-such-pager -x")
    terminal.press(f"SELECT x AS number FROM range(200) t(x);{ENTER}")
    terminal.wait_for("199", "200 rows in", "no pager no-such-pager: No such file")


def test_commands(shell, topic):
    terminal = shell()
    terminal.press(f".tables{ENTER}")
    terminal.wait_for(f"default.{topic} ", f"default.{topic}__dlq")
    terminal.press(f".output json{ENTER}SELECT 1 AS x;{ENTER}")
    terminal.wait_for('{"x": 1}')
    terminal.press(f".output xml{ENTER}")
    terminal.wait_for("error: there is no command .output xml: .help shows what there is")
    terminal.press(f".help{ENTER}")
    terminal.wait_for(".output text|csv|json", "Ctrl-R")
    end(terminal, f"exit{ENTER}")


def test_without_a_server_there_is_no_prompt(lake):
    command = [sys.executable, "-m", "streamlake.cli.main", "sql", "--http", "127.0.0.1:1"]
    with Terminal(command, lake.environ) as terminal:
        terminal.wait_for("error: no StreamLake server answers at http://127.0.0.1:1")
        assert terminal.end() == 3


@pytest.mark.parametrize("text", ["SELECT 1;", "SELECT ';';", "SELECT 1; -- done", ".tables", "quit", "", " help "])
def test_enter_runs_what_is_complete(text):
    assert is_complete(text)


@pytest.mark.parametrize("text", ["SELECT 1", "SELECT ';", "SELECT 1 -- ;", "SELECT 1; SELECT", '"a;'])
def test_enter_goes_on_with_what_is_not(text):
    assert not is_complete(text)

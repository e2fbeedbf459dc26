"""What every client command shares."""

import pytest

from streamlake.cli import console
from streamlake.core.errors import Unavailable


def test_no_server_says_how_to_start_one():
    with pytest.raises(Unavailable, match="streamlake server"):
        console.get_json("http://127.0.0.1:1", "/v1/tables")


def test_an_http_error_names_the_code(lake):
    with pytest.raises(Unavailable, match="404"):
        console.get_json(lake.http, "/v1/nothing")


def test_fail_exits_with_one(capsys):
    with pytest.raises(SystemExit) as ended:
        console.fail("no luck")
    assert ended.value.code == 1
    assert "no luck" in capsys.readouterr().err


def test_show_groups_digits(capsys):
    console.show("title", ["name", "rows"], [["a", 1234567], ["b", None]], ("rows",))
    assert "1,234,567" in capsys.readouterr().out

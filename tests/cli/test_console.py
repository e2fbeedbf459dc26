"""What every client command shares: data are printed as they are, and an end tells a script what it was."""

import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.text import Text

from streamlake.cli import console
from streamlake.cli.console import Difference, Exit, Usage
from streamlake.core.errors import Invalid, NotFound, Unavailable

HOSTILE = [
    "[/foo]",
    "[red]x[/red]",
    "[bold",
    ":smile:",
    "\\[x]",
    "pip install 'a[sql]'",
    "[link=file:///etc]x[/link]",
    "{0}",
]


def printable(text: str) -> str:
    return "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cs"))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Invalid("no luck"), 1),
        (NotFound("no luck"), 1),
        (Usage("no luck"), 2),
        (Unavailable("no luck"), 3),
        (Difference("no luck"), 4),
    ],
)
def test_fail_ends_with_the_code_of_its_error(capsys, error, code):
    with pytest.raises(SystemExit) as ended:
        console.fail(error)
    assert ended.value.code == code
    assert capsys.readouterr().err == "error: no luck\n"


def test_exit_codes_are_what_the_guide_says():
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "commands.md").read_text()
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", guide, re.MULTILINE)] == [code.value for code in Exit]


def test_show_groups_digits(capsys):
    console.show("title", ["name", "rows"], [["a", 1234567], ["b", None]], ("rows",))
    assert "1,234,567" in capsys.readouterr().out


@pytest.mark.parametrize("text", HOSTILE)
def test_markup_is_data_wherever_it_comes(capsys, text):
    console.show(text, [text], [[text], [Text(text, "red")]])
    console.say(text, (text, "bold"))
    assert capsys.readouterr().out.count(text) == 6
    console.note(text)
    console.complain(text)
    with pytest.raises(SystemExit):
        console.fail(Invalid(text))
    assert capsys.readouterr().err.count(text) == 3


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
@example("00\u1be6\xa0")
def test_any_text_comes_out_as_it_is(text):
    with console.out.capture() as captured:
        console.say(text)
    assert captured.get() == text + "\n"
    with console.out.capture() as captured:
        console.show("", ["x"], [[text], ["end"]])
    row = captured.get().split("\n")[1]
    assert row.startswith(text) and not row[len(text) :].strip(" ")


@given(st.text())
def test_control_characters_are_shown_not_obeyed(text):
    shown = console.visible(text, "")
    assert printable(shown) == shown, "nothing is left that a terminal obeys"
    if printable(text) == text:
        assert shown == text
    with console.out.capture() as captured:
        console.say(text)
    assert captured.get() == console.visible(text) + "\n"


def test_escapes():
    assert console.visible("\x1b[31mred\t\r\x00\x85\ud800", "") == r"\x1b[31mred\t\r\x00\x85\ud800"


def test_a_pipe_gets_whole_lines(capsys):
    console.show("", ["long"], [["x" * 5000]])
    assert "x" * 5000 in capsys.readouterr().out


def test_json_is_one_document(capsys):
    console.show_json([{"a": "[red]ö", "n": 12345}])
    assert json.loads(capsys.readouterr().out) == [{"a": "[red]ö", "n": 12345}]

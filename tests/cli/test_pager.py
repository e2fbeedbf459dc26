"""Which tables go through a pager, and how. On a whole terminal: test_sql_shell.py."""

import signal

import pytest
from rich.console import Console

from streamlake.cli import pager
from streamlake.cli.console import as_table

SMALL, LONG, WIDE = [["x"]], [[str(n)] for n in range(100)], [["wide " * 100]]


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setattr(pager, "out", Console(force_terminal=True, color_system="standard", width=40, height=10))


@pytest.fixture
def paged(monkeypatch, tmp_path):
    """Whether a table was paged, and the text that the pager got."""
    file = tmp_path / "paged"
    monkeypatch.setenv("PAGER", f"tee '{file}'")

    def page(rows):
        return pager.page(as_table("", ["column"], rows)), file.read_text() if file.exists() else ""

    return page


def test_what_fits_is_not_paged(paged):
    assert paged(SMALL) == (False, "")


def test_long_and_wide_tables_are(paged):
    is_paged, text = paged(LONG)
    assert is_paged and len(text.splitlines()) == 101 and "\x1b[" in text, "in colour"
    is_paged, text = paged(WIDE)
    assert is_paged and "wide " * 99 in text, "and not folded"


@pytest.mark.parametrize("none", ["", "cat"])
def test_no_pager(monkeypatch, none):
    monkeypatch.setenv("PAGER", none)
    assert not pager.page(as_table("", ["column"], LONG))


@pytest.mark.parametrize(("own", "told"), [(None, "FRSX"), ("-i", "-i")])
def test_less_is_told_how_unless_its_user_has_told_it(monkeypatch, tmp_path, own, told):
    script = tmp_path / "less"
    script.write_text(f"#!/bin/sh\necho $LESS > {tmp_path}/told\ncat > {tmp_path}/paged\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("PAGER", raising=False)
    if own:
        monkeypatch.setenv("LESS", own)
    else:
        monkeypatch.delenv("LESS", raising=False)
    assert pager.page(as_table("", ["column"], LONG))
    assert (tmp_path / "told").read_text().strip() == told


def test_a_pager_that_ends_early_and_ctrl_c_are_quiet(monkeypatch):
    """The table is larger than a pipe holds, so that the pager has not read all of it."""
    monkeypatch.setenv("PAGER", "sh -c 'kill -INT $PPID'")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert pager.page(as_table("", ["column"], LONG * 60))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)

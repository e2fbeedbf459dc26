"""How records are printed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.cli.console import Usage
from streamlake.cli.record_format import compile_format, readable, unescape

ROW = {
    "topic": "t",
    "partition": 3,
    "offset": 42,
    "timestamp": 1700,
    "key": b"k",
    "value": b"v\xff",
    "headers": [{"key": "h", "value": b"1"}, {"key": b"\xfe", "value": None}],
}


@pytest.mark.parametrize(
    ("format", "printed"),
    [
        (r"%p %o %k %v\n", b"3 42 k v\\xff\n"),
        ("%t/%d/%K/%V", b"t/1700/1/2"),
        ("%v{hex} %v{base64} %v{raw} %k{raw}", b"76ff dv8= v\xff k"),
        ("%h", b"h=1,\\xfe="),
        (r"100%%\t\\\x00\xff", b"100%\t\\\x00\xff"),
        ("[red]{x}", b"[red]{x}"),
    ],
)
def test_fields_and_escapes(format, printed):
    assert compile_format(format)(ROW) == printed


def test_null_prints_nothing_and_its_length_tells():
    assert compile_format("%k|%v|%K|%V|%h")({**ROW, "key": None, "value": None, "headers": []}) == b"||-1|-1|"


@pytest.mark.parametrize("format", ["%", "%z", "%s", r"\q", "\\", "%v{xml}", "%o{hex}", "%{hex}", "%%{hex}"])
def test_mistakes_say_what_there_is(format):
    with pytest.raises(Usage, match=r"known|there is no|only"):
        compile_format(format)


@given(st.text())
def test_any_format_works_or_is_refused(text):
    try:
        assert isinstance(compile_format(text)(ROW), bytes)
    except Usage:
        pass


@given(st.binary())
def test_any_value_is_safe_on_a_terminal(data):
    shown = readable(data)
    text = shown.decode()
    assert all(c.isprintable() or c in "\n\t" or ord(c) > 0x9F for c in text)
    try:
        clean = data.decode()
    except UnicodeDecodeError:
        return
    if clean.isprintable():
        assert shown == data


def test_unescape():
    assert [unescape(text) for text in (r"\t", ":", r"a\\b", r"\xff")] == [b"\t", b":", b"a\\b", b"\xff"]
    with pytest.raises(Usage):
        unescape("\\")

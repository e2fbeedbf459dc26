"""What is offered at the cursor."""

import pytest

from streamlake.cli.sql_completion import Words, candidates, written
from streamlake.lake.names import Name

TABLES = [Name("default", "hello"), Name("default", "shop.orders-v1"), Name("raw", "hello"), Name("default", "order")]
WORDS = Words(
    ["select", "from", "order", "varchar"], frozenset(["select", "from", "order"]), ["sum", "split", "concat"]
)
COLUMNS = {"hello": ["value", "_kafka"], '"shop.orders-v1"': ["Value at", "from"], "raw.hello": ["x"]}


def offered(text):
    """At the bar in a text: the word, and what may stand in its place."""
    before, _, after = text.partition("|")
    word, found = candidates(before, after, TABLES, lambda table: COLUMNS.get(table, []), WORDS)
    return word, [candidate.text for candidate in found]


@pytest.mark.parametrize(
    ("text", "word", "texts"),
    [
        ("FROM |", "", ["hello", '"shop.orders-v1"', "raw.hello", '"order"']),
        ("SELECT * FROM he|", "he", ["hello"]),
        ("SELECT * FROM hello JOIN sh|", "sh", ['"shop.orders-v1"']),
        ('FROM "shop.or|', '"shop.or', ['"shop.orders-v1"']),
        ("FROM hello, raw.|", "raw.", ["raw.hello"]),
        ("DESCRIBE HE|", "HE", ["hello"]),
        ("se|", "se", ["select"]),
        ("SE|", "SE", ["SELECT"]),
        ("SELECT su|", "su", ["sum("]),
        ("SELECT | FROM hello", "", ["value", "_kafka"]),
        ("SELECT v| FROM hello", "v", ["value", "varchar"]),
        ("SELECT h.v| FROM hello h", "h.v", ["h.value"]),
        ('SELECT va| FROM "shop.orders-v1"', "va", ['"Value at"', "varchar"]),
        ('SELECT fr| FROM "shop.orders-v1"', "fr", ['"from"', "from"]),
        ("SELECT | FROM raw.hello", "", ["x"]),
        ("", "", []),
    ],
)
def test_at_the_cursor(text, word, texts):
    assert offered(text) == (word, texts)


def test_names_as_a_statement_may_write_them():
    assert [written(name, WORDS) for name in TABLES] == ["hello", '"shop.orders-v1"', "raw.hello", '"order"']
    assert written(Name("a.b", 'say "hi"'), WORDS) == '"a.b"."say ""hi"""'


def test_no_pause_for_a_long_statement():
    """Names with quotes are found in one pass: what is typed is never searched again for each of its letters."""
    offered("SELECT " + '"a' * 10_000 + "|")
    offered("SELECT " + "a." * 10_000 + "|")
    offered("FROM " + "a , " * 10_000 + "|")

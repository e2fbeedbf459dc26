"""Names of tables as statements write them."""

import pytest

from streamlake.lake.names import Name, parsed, quoted, split


@pytest.mark.parametrize(
    ("table", "namespace", "name"),
    [
        ("default.hello", "default", ("default", "hello")),
        ("default.shop.orders.v1", "default", ("default", "shop.orders.v1")),
        ("lake.raw.orders", "lake.raw", ("lake.raw", "orders")),
        ("lake.raw.orders", "lake", ("lake", "raw.orders")),
        ("old.orders", "new", ("old", "orders")),
    ],
)
def test_where_to_cut(table, namespace, name):
    assert split(table, namespace) == name


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("hello", ("default", "hello")),
        ('"shop.orders.v1"', ("default", "shop.orders.v1")),
        ('"default"."a.b"', ("default", "a.b")),
        ('"a.b"."c"', ("a.b", "c")),
        ('memory.ns."x"', ("ns", "x")),
        ('"say ""hi"""', ("default", 'say "hi"')),
        ("shop.orders.v1", None),
        ('"sql"."default"."x"', None),
    ],
)
def test_names_as_statements_write_them(written, name):
    assert parsed(written) == name


def test_quotes_inside():
    assert quoted('a"b') == '"a""b"'
    assert Name('a"b', "c.d").quoted == '"a""b"."c.d"'
    assert parsed(Name('a"b', "c.d").quoted) == ('a"b', "c.d")


def test_folded():
    assert Name("A", "B").folded == ("a", "b")

"""Folders of buckets."""

import pytest

from streamlake.iceberg_rest.s3.place import Place, is_plain, place_of


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://b/a/t", Place("b", "a/t/")),
        ("s3a://b/a/t/", Place("b", "a/t/")),
        ("s3n://b/a%2Fb", Place("b", "a%2Fb/")),
        ("s3://b", Place("b", "")),
        ("s3://b/", Place("b", "")),
    ],
)
def test_urls(url: str, place: Place) -> None:
    assert place_of(url) == place


@pytest.mark.parametrize(
    "url", ["", "warehouse", "file:///a", "s3:///a", "s3://b//a", "s3://b/a//", "s3://b/a/../c", "s3://b/./a",
            "s3://b/a\nb", "s3://b/a\0", "gs://b/a", "arn:aws:s3:::b"],
)  # fmt: skip
def test_what_is_no_place(url: str) -> None:
    assert place_of(url) is None


def test_what_is_below() -> None:
    table, warehouse = Place("b", "w/t/"), Place("b", "w/")
    assert table.is_below(warehouse) and table.is_below(Place("b", "")) and table.is_within(table)
    for other in (table, Place("c", "w/"), Place("b", "w/t/u/"), Place("b", "w/t2/")):
        assert not table.is_below(other)


@pytest.mark.parametrize(
    ("key", "holds"),
    [
        ("w/t/x", True), ("w/t/a/b.parquet", True), ("w/t/...", True), ("w/t/\u00e4 b%2F", True),
        ("w/t/", False), ("w/t", False), ("w/t2/x", False), ("x/w/t/x", False), ("", False),
        ("w/t/../u/x", False), ("w/t/./x", False), ("w/t//x", False), ("w/t/x/..", False), ("w/t/x/", False),
        ("w/t/a\0b", False), ("w/t/a\nb", False),
    ],
)  # fmt: skip
def test_keys(key: str, holds: bool) -> None:
    assert Place("b", "w/t/").holds(key) == holds


def test_plain() -> None:
    assert is_plain("a/b c") and not is_plain("/a")

import pytest

from streamlake.core.errors import Invalid
from streamlake.s3stream.wal.uri import WalUri, parse


@pytest.mark.parametrize(
    ("text", "uri", "stored"),
    [
        ("file", WalUri("file", "/data/wal"), "file"),
        ("file:///data/wal", WalUri("file", "/data/wal"), "file"),
        ("object", WalUri("object", "s3://b/p"), "object"),
        ("s3://b/p", WalUri("object", "s3://b/p"), "object"),
        ("file:///mnt/wal/", WalUri("file", "/mnt/wal"), "file:///mnt/wal"),
        ("file:///mnt?shared=true", WalUri("file", "/mnt", shared=True), "file:///mnt?shared=true"),
        ("file:///mnt?shared=false", WalUri("file", "/mnt"), "file:///mnt"),
        ("s3://fast/x/", WalUri("object", "s3://fast/x"), "object+s3://fast/x"),
        ("object+s3://fast", WalUri("object", "s3://fast"), "object+s3://fast"),
        ("gs://b", WalUri("object", "gs://b"), "object+gs://b"),
        ("object+file:///dir", WalUri("object", "file:///dir"), "object+file:///dir"),
    ],
)
def test_forms(text: str, uri: WalUri, stored: str) -> None:
    parsed = parse(text, "/data", "s3://b/p")
    assert (parsed, str(parsed)) == (uri, stored)
    if stored not in ("file", "object"):
        assert parse(stored, "/elsewhere", "s3://other") == uri, "what is stored means the same for everybody"


def test_our_own_places_move_with_us() -> None:
    """A copy of a data directory that is started must not drain the WAL of the original."""
    assert parse("file", "/copy", "s3://b").place == "/copy/wal"
    assert parse("object", "/copy", "s3://other").place == "s3://other"


@pytest.mark.parametrize(
    "text",
    ["", "disk", "file://", "file://host/dir", "file:///d?shared=1", "file:///d?x=y", "file:///d?shared", "s3://",
     "object+", "object+file://host/d", "object+dir", "/mnt/wal"],
)  # fmt: skip
def test_what_is_no_wal(text: str) -> None:
    with pytest.raises(Invalid, match="is not a valid WAL: use"):
        parse(text, "/data", "s3://b/p")

import pytest

from streamlake.core.errors import Invalid
from streamlake.s3stream.wal_uri import WalUri, parse


@pytest.mark.parametrize(
    ("text", "uri", "stored"),
    [
        ("file", WalUri("file", "/data/wal"), "file:///data/wal"),
        ("object", WalUri("object", "s3://b/p"), "object+s3://b/p"),
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
    assert parse(text, "/data", "s3://b/p") == uri
    assert str(uri) == stored
    assert parse(stored, "/elsewhere", "s3://other") == uri, "what is stored means the same for everybody"


@pytest.mark.parametrize(
    "text",
    ["", "disk", "file://", "file://host/dir", "file:///d?shared=1", "file:///d?x=y", "file:///d?shared", "s3://",
     "object+", "object+file://host/d", "object+dir", "/mnt/wal"],
)  # fmt: skip
def test_what_is_no_wal(text: str) -> None:
    with pytest.raises(Invalid, match="is no WAL: say"):
        parse(text, "/data", "s3://b/p")

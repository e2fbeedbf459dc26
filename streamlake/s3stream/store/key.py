"""Which keys an object may have, the same for every store, so that data can move from one to another.

A key is a path of plain names: it can be a path below a local directory, and needs no escaping on S3, GCS or Azure.
"""

from streamlake.core.errors import Invalid

KEY_BYTES_MAX = 1024  # S3's limit
NAME_BYTES_MAX = 255  # of common file systems
RESERVED_NAME = ".tmp"  # the local store's temporary files


def checked_key(key: str) -> str:
    """The key, if it is one; else Invalid."""
    if not (key.isascii() and key.isprintable()) or len(key) > KEY_BYTES_MAX:
        raise Invalid(f"object key {key[:KEY_BYTES_MAX]!r}: at most {KEY_BYTES_MAX} printable ASCII characters")
    names = key.split("/")
    if any(name in ("", ".", "..") or len(name) > NAME_BYTES_MAX for name in names) or names[0] == RESERVED_NAME:
        raise Invalid(f"object key {key!r}: names of 1 to {NAME_BYTES_MAX} characters with slashes between them")
    return key

"""What versions of a subject mean: pure rules over its rows, with Confluent's errors.

A version number is given once while its subject has any version; a soft-deleted version keeps its number and is seen
only by those who ask for deleted ones; only a soft-deleted version can be deleted for good. Rows come by version.
"""

from collections.abc import Sequence

from streamlake.cluster.store.schemas import VersionRow
from streamlake.registry import errors
from streamlake.registry.errors import RegistryError

SUBJECT_CHARS_MAX = 1_024
VERSIONS_MAX = 1_000  # of one subject: a transitive check reads them all
VERSION_NUMBER_MAX = 2**31 - 1
LATEST = "latest"

Rows = Sequence[VersionRow]


def check_subject(subject: str) -> None:
    if not subject or len(subject) > SUBJECT_CHARS_MAX or any(ord(char) < 32 for char in subject):
        text = f"a subject has 1 to {SUBJECT_CHARS_MAX} characters, without control characters"
        raise RegistryError(errors.INVALID_SUBJECT, text)


def visible(rows: Rows, deleted: bool = False) -> list[VersionRow]:
    return [row for row in rows if deleted or not row.deleted]


def require_subject(subject: str, rows: Rows, deleted: bool = False) -> list[VersionRow]:
    """The visible versions; SUBJECT_NOT_FOUND if there are none."""
    found = visible(rows, deleted)
    if not found:
        raise RegistryError(errors.SUBJECT_NOT_FOUND, f"Subject '{subject}' not found.")
    return found


def parse_version(version: str) -> int | None:
    """A number, or None for the latest, which may also be written -1."""
    if version in (LATEST, "-1"):
        return None
    digits = version.lstrip("0")  # a number of thousands of digits is an error of its own to int()
    if not (version.isascii() and digits.isdigit() and len(digits) <= 10) or int(digits) > VERSION_NUMBER_MAX:
        text = f"The specified version '{version[:50]}' is not a valid version id: a number from 1 up, or 'latest'."
        raise RegistryError(errors.INVALID_VERSION, text)
    return int(digits)


def find_version(subject: str, rows: Rows, version: int | None, deleted: bool = False) -> VersionRow:
    """Version None: the latest."""
    found = require_subject(subject, rows, deleted)
    if version is None:
        return found[-1]
    for row in found:
        if row.version == version:
            return row
    raise RegistryError(errors.VERSION_NOT_FOUND, f"Version {version} not found.")


def version_of(rows: Rows, schema_id: int | None, deleted: bool = False) -> VersionRow | None:
    """The newest visible version with this schema."""
    return next((row for row in reversed(visible(rows, deleted)) if row.schema_id == schema_id), None)


def greatest_version(subject: str, rows: Rows) -> int:
    """Soft-deleted ones count, so that no number is given twice; 0 if there is none."""
    if len(rows) >= VERSIONS_MAX:
        text = f"Subject '{subject}' has {VERSIONS_MAX} versions, which is the limit: delete old ones permanently."
        raise RegistryError(errors.NOT_PERMITTED, text)
    return rows[-1].version if rows else 0


def deletable_subject(subject: str, rows: Rows, permanent: bool) -> list[int]:
    """The versions that deleting the subject would delete."""
    if permanent:
        versions = require_subject(subject, rows, deleted=True)
        if visible(rows):
            text = f"Subject '{subject}' was not deleted first before being permanently deleted"
            raise RegistryError(errors.SUBJECT_NOT_SOFT_DELETED, text)
        return [row.version for row in versions]
    if rows and not visible(rows):
        text = f"Subject '{subject}' was soft deleted. Set permanent=true to delete permanently"
        raise RegistryError(errors.SUBJECT_SOFT_DELETED, text)
    return [row.version for row in require_subject(subject, rows)]


def deletable_version(subject: str, rows: Rows, version: int | None, permanent: bool) -> int:
    """The version to delete."""
    if version is None and not permanent:
        return find_version(subject, rows, None).version
    row = find_version(subject, rows, version, deleted=True)
    if permanent and not row.deleted:
        text = f"Subject '{subject}' Version {row.version} was not deleted first before being permanently deleted"
        raise RegistryError(errors.VERSION_NOT_SOFT_DELETED, text)
    if row.deleted and not permanent:
        text = f"Subject '{subject}' Version {row.version} was soft deleted. Set permanent=true to delete permanently"
        raise RegistryError(errors.VERSION_SOFT_DELETED, text)
    return row.version

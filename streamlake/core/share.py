"""The directory of the files that people copy or read: examples of catalogs and schemas, the guides."""

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent


def shared_files() -> Path:
    """A directory with catalogs/, docs/guides/ and schemas/: of the wheel, or the checkout that is installed."""
    installed = _PACKAGE / "share"
    return installed if installed.is_dir() else _PACKAGE.parent

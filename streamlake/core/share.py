"""The directory of the files that people copy or read: examples of catalogs and schemas, guides, notebooks."""

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent


def shared_files() -> Path:
    """A directory with catalogs/, docs/guides/, notebooks/, schemas/: of the wheel, or of the checkout in use."""
    installed = _PACKAGE / "share"
    return installed if installed.is_dir() else _PACKAGE.parent

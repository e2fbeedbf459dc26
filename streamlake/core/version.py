"""The version of StreamLake. The distribution is not named `streamlake`: on PyPI that is another project."""

DISTRIBUTION = "streamlake-server"


def version() -> str:
    """As the installed distribution says; `unknown` for sources that were never installed."""
    from importlib import metadata  # takes a while to import, and most commands do not ask

    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"


def install_hint(extra: str) -> str:
    """How to get an extra, for messages."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"

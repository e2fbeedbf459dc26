"""What was typed in `streamlake sql`, in a file that only its user can read."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from streamlake.cli.console import note

HISTORY_BYTES_MAX = 1 << 20
STATEMENT_BYTES_MAX = 64 << 10
# CREATE SECRET, ATTACH (TOKEN …), s3_secret_access_key: such a statement stays in memory.
SECRETS = re.compile(r"secret|token|password|passwd|key_id|access_key|credential", re.IGNORECASE)


def history_file() -> Path:
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state") / "streamlake" / "sql_history"


def open_history(path: Path) -> History:
    """In memory only, with a line that says why, if the file cannot be used."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        path.chmod(0o600)  # one that was made by something else
    except OSError as error:
        note((f"what you type is not kept: {path}: {error.strerror}", "dim"))
        return InMemoryHistory()
    return _Statements(path)


class _Statements(FileHistory):
    """At most HISTORY_BYTES_MAX: then the older half is forgotten."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def load_history_strings(self) -> Iterable[str]:
        try:
            yield from super().load_history_strings()
        except OSError:  # removed meanwhile
            return

    def store_string(self, string: str) -> None:
        if SECRETS.search(string) or len(string.encode()) > STATEMENT_BYTES_MAX:
            return
        try:
            if self._path.stat().st_size > HISTORY_BYTES_MAX:
                self._forget()
            super().store_string(string)
        except OSError:  # a full disk, a file that was removed: the statement runs all the same
            pass

    def _forget(self) -> None:
        content = self._path.read_bytes()[-HISTORY_BYTES_MAX // 2 :]
        _, _, kept = content.partition(b"\n# ")  # each entry begins with such a line
        shorter = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with os.fdopen(os.open(shorter, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            file.write(b"\n# " + kept)
        shorter.replace(self._path)

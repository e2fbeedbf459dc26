"""Is the head of a table readable? A commit on top of one that is not would hide the loss, so it is refused.

Another tool may delete files that a table needs. We would not notice: our own last manifests are cached, and an
append reads nothing again. So the head's manifest list is read, and its manifests are asked for, all of them when a
table is taken over, and a few in turn now and then: each is a request to the store, and a commit makes only
about six. Data files are not checked: the engine that queries the table reports a missing one.
"""

import asyncio

from pyiceberg.manifest import read_manifest_list
from pyiceberg.table import Table

from streamlake.core.errors import Conflict, Corrupt
from streamlake.core.tasks import Executor

LOOK_S = 30.0  # between looks while the table commits
LOOK_IDLE_S = 600.0
MANIFESTS_A_LOOK = 10


class Unreadable(Corrupt):
    """Files of the table's head are gone or damaged for certain. A store that does not answer is no proof of that."""


class Health:
    """Watches one table."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._looked_at = -LOOK_IDLE_S
        self._turn = 0  # the manifest that is looked at next
        self._doubted = False

    def doubt(self) -> None:
        """A file was not found: the next look is at all of the head."""
        self._doubted = True

    async def check(self, table: Table) -> None:
        """Look at all of the head, as the catalog has it now. Raises Unreadable, or whatever the store raises."""
        missing, _ = await self._executor.run(_look, table, 0, None)
        if missing:
            raise unreadable(".".join(table.name()), missing)
        self._looked_at = asyncio.get_running_loop().time()

    async def look(self, table: Table, committing: bool) -> None:
        """Look at some of the head, if it is time to. Conflict if a file is missing: the table must be opened again,
        which tells whether another engine has moved on without it."""
        now = asyncio.get_running_loop().time()
        if not self._doubted and now - self._looked_at < (LOOK_S if committing else LOOK_IDLE_S):
            return
        most = None if self._doubted else MANIFESTS_A_LOOK
        missing, self._turn = await self._executor.run(_look, table, self._turn, most)
        if missing:
            raise Conflict(f"table {'.'.join(table.name())}: {missing}")
        self._doubted = False
        self._looked_at = now


def unreadable(table: str, what: str) -> Unreadable:
    return Unreadable(
        f"table {table} cannot be read, and nothing is committed to it: {what}. Restore the file from a backup, or "
        "roll the table back to a snapshot that can be read, or drop it, then disable and enable the table of this "
        "topic to build it again from the log"
    )


def _look(table: Table, turn: int, most: int | None) -> tuple[str, int]:
    """Which file of the head is gone, of `most` manifests from number `turn` on; and the next turn. Blocks.

    It begins with the oldest. The newest come first in the list: in its order a table that grows quickly would keep
    the others from their turn."""
    head = table.metadata.current_snapshot()
    if head is None:
        return "", 0
    source = table.io.new_input(head.manifest_list)
    try:
        manifests = list(read_manifest_list(source))[::-1]
    except FileNotFoundError:
        return f"its manifest list {head.manifest_list} is gone", 0
    except OSError:
        raise
    except Exception as error:  # a decoder may raise anything at other bytes, and a store that does not answer as well
        with source.open() as stream:
            stream.read()
        return f"its manifest list {head.manifest_list} is damaged ({type(error).__name__}: {error})", 0
    turn = turn if most is not None and turn < len(manifests) else 0
    end = len(manifests) if most is None else turn + most
    for manifest in manifests[turn:end]:
        if not table.io.new_input(manifest.manifest_path).exists():
            return f"its manifest {manifest.manifest_path} is gone", 0
    return "", end

"""The end of a broker's services."""

import pytest

from streamlake.broker.services import Undo, undo_all
from streamlake.core.errors import Unavailable


async def test_what_cannot_be_undone_keeps_nothing_else_from_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A store that is away is told in a line; a bug by a traceback."""
    done = []

    async def away() -> None:
        raise Unavailable("the metadata store is away")

    def bug() -> None:
        raise ZeroDivisionError

    undo: list[tuple[str, Undo]] = [("first", lambda: done.append(1)), ("a bug", bug), ("membership", away)]
    await undo_all(undo[:1] + undo[2:])
    out = capsys.readouterr()
    assert done == [1] and "metadata store is away" in out.out + out.err and "Traceback" not in out.out + out.err
    await undo_all(undo[:2])
    out = capsys.readouterr()
    assert done == [1, 1] and "Traceback" in out.out + out.err

"""What a coordinator's state machine and its shell (shell.py) say to each other.

A machine is one group, sans-IO: an event and the time go in, effects come out. It knows no store, no clock and no event
loop, so its life is a pure function of its events. Each kind of group has its own events; all kinds have these effects.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from streamlake.core.errors import StreamLakeError

NEVER_MS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Saved:
    """What of a machine survives a restart. Only machines of its kind understand the blob."""

    kind: str
    epoch: int  # grows with the state that members see: the generation of a classic group
    blob: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to the request that `token` stands for. Each token gets exactly one."""

    token: Any
    answer: Any


@dataclass(frozen=True, slots=True)
class Save:
    """Make `saved` durable, then call the machine's `saved`."""

    saved: Saved
    reason: str  # for the log
    then: Answer | None = None  # an answer that waits for it


Effect = Answer | Save


class Machine(Protocol):
    wake_ms: int
    """`tick` must be called by then, NEVER_MS if nothing is due."""

    def take_effects(self) -> list[Effect]:
        """What has to be done since it was last asked, in this order."""
        ...

    def tick(self, now_ms: int) -> None:
        """Time has passed."""
        ...

    def saved(self, save: Save, error: StreamLakeError | None, now_ms: int) -> None:
        """What `save` asked for is durable; with an error, it may or may not be."""
        ...

    def abandon(self) -> None:
        """This coordinator stops, or is not that of the group any more: every request that waits is answered with
        that."""
        ...

"""How long a rebalance waits for members to join.

It waits until all members have joined, or until their longest rebalance timeout has passed. The first rebalance of an
empty group does not know its members yet: it waits for group.initial.rebalance.delay.ms, and once more each time that a
new member has joined meanwhile, but never longer than the rebalance timeout in total.
"""

from streamlake.coordinator.machine import NEVER_MS


class JoinPhase:
    def __init__(self, initial_delay_ms: int) -> None:
        self.deadline_ms = NEVER_MS
        self.initial = False  # it waits even if all members have joined
        self._initial_delay_ms = initial_delay_ms
        self._left_ms = 0  # how much longer new members may extend the initial delay
        self._newcomers = False

    def begin(self, first: bool, timeout_ms: int, now_ms: int) -> None:
        """`first`: the group was empty."""
        delay_ms = min(self._initial_delay_ms, timeout_ms)
        self.initial = first and delay_ms > 0
        self._left_ms = timeout_ms - delay_ms
        self._newcomers = False
        self.deadline_ms = now_ms + (delay_ms if self.initial else timeout_ms)

    def newcomer(self) -> None:
        self._newcomers = True

    def prolong(self, timeout_ms: int, now_ms: int) -> None:
        """No member that could lead has joined: wait once more."""
        self.deadline_ms = now_ms + timeout_ms

    def over(self, now_ms: int) -> bool:
        """Whether the deadline has passed. An initial delay in which new members joined starts again instead."""
        if now_ms < self.deadline_ms:
            return False
        if self.initial and self._newcomers and self._left_ms > 0:
            delay_ms = min(self._initial_delay_ms, self._left_ms)
            self._left_ms -= delay_ms
            self._newcomers = False
            self.deadline_ms = now_ms + delay_ms
            return False
        self.initial = False
        return True

    def end(self) -> None:
        self.initial = False
        self.deadline_ms = NEVER_MS

"""Chance is handed in: ids, jitter and nonces come from one seedable source."""

import random
from uuid import UUID


class Ids:
    """`Ids()` draws from the operating system; `Ids(seed)` is repeatable, for tests and simulation."""

    def __init__(self, seed: int | None = None) -> None:
        self.random: random.Random = random.SystemRandom() if seed is None else random.Random(seed)

    def uuid(self) -> UUID:
        """A random (version 4) UUID."""
        return UUID(int=self.random.getrandbits(128), version=4)

    def int63(self) -> int:
        """A positive 63-bit integer, as Iceberg wants its snapshot ids."""
        return self.random.getrandbits(63) or 1

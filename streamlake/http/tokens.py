"""The tokens of `[http] tokens`: who sends one of them is let in, and who guesses is slowed down.

A wrong token takes one of the few places that each address has for them, and keeps it for a while. Without a free
place nothing from that address is compared: how many guesses there can be does not depend on how fast they come. The
same wrong token takes one place however often it comes: a client with an old one must not lock out those who come
through the same proxy.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from typing import Literal

WRONG_MAX = 10  # different tokens of one address …
WRONG_KEPT_S = 10  # … for so long each

Verdict = Literal["known", "unknown", "too many"]


class Tokens:
    """Without any token everybody is let in."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = [token.encode() for token in tokens]
        self._wrong: dict[str, set[bytes]] = {}  # by address, hashes of the wrong tokens that count still

    @property
    def are_needed(self) -> bool:
        return bool(self._tokens)

    def check(self, given: str, address: str) -> Verdict:
        wrong = self._wrong.get(address, set())
        if len(wrong) >= WRONG_MAX:
            return "too many"
        # Each is compared, and in constant time: how long it takes tells nothing of a token.
        matches = [hmac.compare_digest(token, given.encode()) for token in self._tokens]
        if any(matches):
            return "known"
        digest = hashlib.sha256(given.encode()).digest()
        if digest not in wrong:
            self._wrong.setdefault(address, set()).add(digest)
            asyncio.get_running_loop().call_later(WRONG_KEPT_S, self._forget, address, digest)
        return "unknown"

    def _forget(self, address: str, digest: bytes) -> None:
        self._wrong[address].discard(digest)
        if not self._wrong[address]:
            del self._wrong[address]

"""Prove at start that a store creates only what is not there.

The object WAL and its fences stand on that one promise (see create in port.py), and there are stores that take
a conditional put and ignore the condition, or check it without a lock. So: several writers create one key at once, one
must win; later ones must be refused; the winner's bytes must be there. An unclear answer proves nothing: the probe
starts again with another key. It says nothing about durability.
"""

import asyncio

from streamlake.core.errors import Exists, Invalid, OutcomeUnknown, Unavailable
from streamlake.core.ids import Ids
from streamlake.s3stream.store.port import ObjectStore

PROBES_MAX = 3
WRITERS = 4


async def probe_conditional_writes(store: ObjectStore, ids: Ids, url: str) -> None:
    """`url` names the store in messages. Invalid if it ignores the condition, Unavailable if it cannot be used."""
    unclear: OutcomeUnknown | Unavailable | None = None
    for _ in range(PROBES_MAX):
        key = f"probe/{ids.uuid().hex}"
        try:
            kept = await _keeps_its_promise(store, key)
            await store.delete([key])
        except (OutcomeUnknown, Unavailable) as error:
            unclear = error
            continue
        if not kept:
            raise Invalid(
                f"{url} overwrites objects that it was told to create only if absent: it cannot hold a WAL. "
                "Use a store that honours If-None-Match, or a file WAL"
            )
        return
    raise Unavailable(f"cannot write to {url}: {unclear}. Check endpoint, bucket and keys") from unclear


async def _keeps_its_promise(store: ObjectStore, key: str) -> bool:
    bodies = [b"writer %d of %s" % (n, key.encode()) for n in range(WRITERS)]
    outcomes = await asyncio.gather(*(_creates(store, key, body) for body in bodies), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    winners = [body for body, won in zip(bodies, outcomes, strict=True) if won]
    return len(winners) == 1 and not await _creates(store, key, b"late") and await store.get(key) == winners[0]


async def _creates(store: ObjectStore, key: str, body: bytes) -> bool:
    try:
        await store.create(key, [body])
    except Exists:
        return False
    return True

"""The object `cluster` at the root of a store names the cluster that owns the store.

Object ids and WAL keys are numbers that every cluster counts from one. Two metadata stores on one bucket and prefix
would overwrite and discard each other's objects; and a store that was exchanged for an empty one (another endpoint, a
disk that is not mounted) would be taken for a log that is empty. Therefore a broker claims a store before it uses it.
"""

import asyncio

from streamlake.core.errors import Corrupt, Exists, Invalid, NotFound, Unavailable
from streamlake.core.retry import TRANSIENT
from streamlake.s3stream.store.port import ObjectStore

KEY = "cluster"
TRIES = 5
PAUSE_S = 0.2


async def claim(store: ObjectStore, cluster_id: str, url: str, *, used_before: bool) -> None:
    """Returns when the store belongs to this cluster. `used_before`: the metadata store knows of data in it, so the
    marker must be there.

    Invalid if it belongs to another cluster, Corrupt if it should be ours and has no marker, Unavailable.
    """
    owner = await _read(store)
    if owner is None and used_before:
        raise Corrupt(
            f"{url} is not the store that this cluster has used: its object {KEY!r} is missing, so acknowledged records"
            " would be. Check the URL, the endpoint, the mount; or restore the store"
        )
    if owner is None:
        owner = await _write(store, cluster_id.encode())
    if owner != cluster_id.encode():
        raise Invalid(
            f"{url} belongs to cluster {owner[:80].decode(errors='replace')}, this is {cluster_id}: two metadata stores"
            " must not share a place. Give another URL or prefix, or the metadata_url of that cluster"
        )


async def _read(store: ObjectStore) -> bytes | None:
    try:
        return await store.get(KEY)
    except NotFound:
        return None


async def _write(store: ObjectStore, cluster_id: bytes) -> bytes:
    """Create the marker; the one that is stored then, ours or that of a broker that was faster."""
    for _ in range(TRIES):
        try:
            # Durable before anything else is stored: the next broker knows to which cluster all of it belongs.
            await store.create(KEY, [cluster_id])
        except (Exists, *TRANSIENT):
            await asyncio.sleep(PAUSE_S)
        owner = await _read(store)
        if owner is not None:
            return owner
    raise Unavailable(f"the store did not take the object {KEY!r}: check that it can be written to")

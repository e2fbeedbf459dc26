"""The object store as a port. Every implementation runs tests/contracts/objectstore_contract.py.

Three outcomes, never two: a method returns (it happened), raises an error that says nothing happened
(Exists, NotFound, Unavailable, Full), or raises OutcomeUnknown (it may have happened, or may still land:
a cancelled or timed-out put can appear later). Callers read back after OutcomeUnknown before they decide. For the same
reason a key is written with the same bytes only: a late first attempt would put old bytes back over newer ones, and a
late put makes an object that was deleted appear again.

Keys are slash-separated ASCII paths without a leading slash. Bytes handed over must never change afterwards.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from streamlake.telemetry.metric import Metric, Sample

Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    key: str
    size: int


class ObjectStore(Protocol):
    requests_cost: bool
    """Each request has its price and its way over a network: a few large ones are better than many small ones."""
    puts: int
    gets: int
    lists: int
    deletes: int

    async def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Store the concatenated parts, replacing what is there. Returns only when durable."""
        ...

    async def create(self, key: str, parts: Sequence[Buffer]) -> None:
        """Store only if absent. Exists is raised only when the key certainly held an object that was not
        written by this call; any answer that leaves that open is OutcomeUnknown."""
        ...

    async def get(self, key: str) -> bytes:
        """The whole object; NotFound."""
        ...

    async def get_range(self, key: str, start: int, length: int) -> Buffer:
        """Exactly `length` bytes from `start`; Corrupt if the object is shorter, NotFound."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete; keys that do not exist are no error."""
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectMeta]:
        """Objects whose key starts with `prefix`. Those of one folder (the same key up to the last slash) come in key
        order. So do the folders, except that some stores give all of `a/…` before `a-b/…`. Objects that come or go
        meanwhile may be seen or not."""
        ...

    async def close(self) -> None: ...


def store_metrics(store: ObjectStore) -> Iterable[Metric]:
    def requests() -> list[Sample]:
        counts = {"put": store.puts, "get": store.gets, "list": store.lists, "delete": store.deletes}
        return [(count, {"kind": kind}) for kind, count in counts.items()]

    return (Metric("counter", "streamlake_store_requests", "Requests to the object store, by kind.", requests),)

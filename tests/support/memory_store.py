"""An object store in memory whose answers can be made to go wrong, one call at a time.

`store.fail("put", "applied_then_unknown")` makes the next put land and then raise OutcomeUnknown. Faults per operation
(put, create, get, get_range, delete, list) are taken in the order they were planned; a `key` limits one to keys that
start with it. "slow" waits until the test sets `store.gate`; "late" raises OutcomeUnknown now and lands at `store.land()`,
and so does a slow put that was cancelled.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from streamlake.core.errors import Corrupt, Exists, Full, NotFound, OutcomeUnknown, Unavailable
from streamlake.s3stream.store.port import Buffer, ObjectMeta

Fault = Literal["unavailable", "full", "unknown", "applied_then_unknown", "late", "slow", "short"]


@dataclass(slots=True)
class Planned:
    operation: str
    fault: Fault
    key: str
    times: int


class MemoryStore:
    requests_cost = True

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.calls: list[tuple[str, str]] = []
        self.gate = asyncio.Event()
        self._planned: list[Planned] = []
        self._late: list[Callable[[], None]] = []

    def fail(self, operation: str, fault: Fault, *, key: str = "", times: int = 1) -> None:
        self._planned.append(Planned(operation, fault, key, times))

    def heal(self) -> None:
        """Forget planned faults and let slow calls go on."""
        self._planned.clear()
        self.gate.set()

    def land(self) -> None:
        """The puts that were late arrive now."""
        late, self._late = self._late, []
        for apply in late:
            apply()

    async def put(self, key: str, parts: Sequence[Buffer]) -> None:
        data = b"".join(parts)
        await self._change("put", key, lambda: self.objects.__setitem__(key, data))

    async def create(self, key: str, parts: Sequence[Buffer]) -> None:
        data = b"".join(parts)

        def apply() -> None:
            self.objects.setdefault(key, data)

        if key in self.objects:
            await self._change("create", key, lambda: None)
            raise Exists(f"object {key} exists already")
        await self._change("create", key, apply)
        if self.objects[key] != data:
            raise Exists(f"object {key} was created meanwhile")

    async def get(self, key: str) -> bytes:
        await self._read("get", key)
        if key not in self.objects:
            raise NotFound(f"there is no object {key}")
        return self.objects[key]

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        fault = await self._read("get_range", key)
        if key not in self.objects:
            raise NotFound(f"there is no object {key}")
        data = self.objects[key][start : start + length]
        if len(data) < length or fault == "short":
            raise Corrupt(f"object {key} is shorter than {start + length} bytes")
        return data

    async def delete(self, keys: Sequence[str]) -> None:
        def apply() -> None:
            for key in keys:
                self.objects.pop(key, None)

        await self._change("delete", keys[0] if keys else "", apply)

    async def list(self, prefix: str) -> AsyncIterator[ObjectMeta]:
        await self._read("list", prefix)
        for key in sorted(k for k in self.objects if k.startswith(prefix)):
            if key in self.objects:
                yield ObjectMeta(key, len(self.objects[key]))

    async def close(self) -> None:
        pass

    async def _read(self, operation: str, key: str) -> Fault | None:
        fault = await self._begin(operation, key)
        if fault in ("unknown", "applied_then_unknown", "late"):
            raise Unavailable(f"{operation} {key}: planned fault {fault}")
        return fault

    async def _change(self, operation: str, key: str, apply: Callable[[], None]) -> None:
        try:
            fault = await self._begin(operation, key)
        except asyncio.CancelledError:
            self._late.append(apply)
            raise
        if fault == "late":
            self._late.append(apply)
        elif fault != "unknown":
            apply()
        if fault in ("unknown", "applied_then_unknown", "late"):
            raise OutcomeUnknown(f"{operation} {key}: planned fault {fault}")

    async def _begin(self, operation: str, key: str) -> Fault | None:
        self.calls.append((operation, key))
        fault = self._next_fault(operation, key)
        if fault == "slow":
            await self.gate.wait()
        if fault == "unavailable":
            raise Unavailable(f"{operation} {key}: planned fault")
        if fault == "full":
            raise Full(f"{operation} {key}: planned fault")
        return fault

    def _next_fault(self, operation: str, key: str) -> Fault | None:
        for planned in self._planned:
            if planned.operation == operation and key.startswith(planned.key):
                planned.times -= 1
                if planned.times == 0:
                    self._planned.remove(planned)
                return planned.fault
        return None

"""Objects in a bucket, with honest outcomes: what becomes of the answers that a StoreClient brings.

The operations that can be repeated without harm are repeated, with growing, jittered pauses. A conditional put is
different: *every* answer to it but success is unknown, "already exists" included, until the object has been read back
and compared. Identical bytes count as ours: writers that must tell themselves from others put a nonce in.

Reads return what was asked for or raise; a short object is Corrupt. Nothing is cached. Requests in flight are bounded.
Nothing here knows the wire (client.py does), so that the simulator runs this very code on a bucket of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from streamlake.core.errors import Corrupt, Exists, Invalid, NotFound, OutcomeUnknown, StreamLakeError, Unavailable
from streamlake.core.ids import Ids
from streamlake.core.retry import Backoff
from streamlake.core.tasks import Executor
from streamlake.s3stream.store.client import (
    DELETE_KEYS_MAX,
    LIST_PAGE_KEYS,
    NO_SUCH_BUCKET,
    ObstoreClient,
    RequestFailed,
    S3Options,
    StoreClient,
    is_missing_object,
    put_requests,
)
from streamlake.s3stream.store.key import checked_key
from streamlake.s3stream.store.port import Buffer, ObjectMeta

T = TypeVar("T")

JOIN_INLINE_BYTES_MAX = 1 << 20  # above it, joining parts would hold the loop too long
RETRYABLE_4XX = (408, 409, 429)


@dataclass(frozen=True, slots=True)
class RequestPolicy:
    """How often a request is tried, how long between, and how many at once."""

    attempts: int = 6
    pause_first_s: float = 0.1
    pause_max_s: float = 5
    in_flight_max: int = 64


def open_s3(
    url: str, ids: Ids, executor: Executor, options: S3Options, policy: RequestPolicy | None = None
) -> "S3Store":
    """The store behind s3://bucket/prefix (or gs://, az://…). Invalid if it cannot be one; nothing is sent yet."""
    return S3Store(ObstoreClient(url, options), ids, executor, policy)


class S3Store:
    """Implements ObjectStore."""

    requests_cost = True

    def __init__(self, client: StoreClient, ids: Ids, executor: Executor, policy: RequestPolicy | None = None) -> None:
        self._client = client
        self._ids = ids
        self._executor = executor
        self._policy = policy or RequestPolicy()
        self._permits = asyncio.Semaphore(self._policy.in_flight_max)
        self.puts = 0
        self.gets = 0
        self.lists = 0
        self.deletes = 0
        self.retries = 0
        self.bytes_in = 0
        self.bytes_out = 0

    async def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """See ObjectStore.put. After an error any of the attempts may have landed, or may still: OutcomeUnknown."""
        checked_key(key)
        body = await self._joined(parts)
        try:
            await self._retried(f"put object {key}", lambda: self._send_put(key, body, create=False))
        except (Unavailable, NotFound) as error:
            raise OutcomeUnknown(f"{error}; the object may or may not be stored") from error

    async def create(self, key: str, parts: Sequence[Buffer]) -> None:
        """See ObjectStore.create. An object with the very same bytes is taken for our own, landed earlier."""
        checked_key(key)
        body = await self._joined(parts)
        backoff = self._backoff()
        for attempt in range(1, self._policy.attempts + 1):
            try:
                # Returning is the ack. Safe: the store answered that this request, whose condition held, is stored.
                await self._send_put(key, body, create=True)
                return
            except RequestFailed as error:
                failure = error
            found = await self._read_back(key, failure)
            if found == body:
                return
            if found is not None:
                raise other_than(key, body, found)
            # Absent: put the same bytes again. Safe: if the first put is only late, one of the two is refused, and
            # what is found then are these bytes.
            if attempt == self._policy.attempts or not (is_passing(failure) or failure.status == 412):
                break
            await self._pause(backoff)
        raise OutcomeUnknown(f"{translated(f'create object {key}', failure)}; it may or may not be created")

    async def get(self, key: str) -> bytes:
        """See ObjectStore.get."""
        checked_key(key)
        return await self._retried(f"get object {key}", lambda: self._send_get(key))

    async def get_range(self, key: str, start: int, length: int) -> Buffer:
        """See ObjectStore.get_range."""
        if start < 0 or length < 0:
            raise Invalid(f"range of {length} bytes from {start} of object {key}")
        checked_key(key)
        # No bytes are wanted: one is asked for, to see whether the object is there.
        data = await self._retried(f"get object {key}", lambda: self._send_get_range(key, start, max(length, 1)))
        if len(data) < length:
            raise Corrupt(f"object {key} ends before byte {start + length}: it is shorter than it should be")
        return data[:length]

    async def delete(self, keys: Sequence[str]) -> None:
        """See ObjectStore.delete."""
        for key in keys:
            checked_key(key)
        for at in range(0, len(keys), DELETE_KEYS_MAX):
            some = keys[at : at + DELETE_KEYS_MAX]
            try:
                await self._retried(f"delete {len(some)} objects", lambda some=some: self._send_delete(some))  # type: ignore[misc]
            except (Unavailable, NotFound) as error:
                raise OutcomeUnknown(f"{error}; some may be deleted: delete them again") from error

    async def list(self, prefix: str) -> AsyncIterator[ObjectMeta]:
        """See ObjectStore.list. One page is held at a time, and a request that fails is repeated for its page only."""
        folder = prefix[: prefix.rfind("/") + 1]  # obstore lists whole folders only
        after = ""
        while True:
            page = await self._retried(f"list objects under {prefix}", lambda: self._send_list(folder, after))  # noqa: B023
            for meta in page:
                if meta.key.startswith(prefix):
                    yield meta
            if len(page) < LIST_PAGE_KEYS:
                return
            after = page[-1].key
            if after > prefix and not after.startswith(prefix):
                return  # also where a store lists folder by folder: what is to come sorts behind the prefix too

    async def close(self) -> None:
        """See ObjectStore.close."""

    # -- one request each ----------------------------------------------------------------------------------------------

    async def _send_put(self, key: str, body: bytes, *, create: bool) -> None:
        self.puts += put_requests(len(body), create)
        self.bytes_in += len(body)
        async with self._permits:
            await self._client.put(key, body, create=create)

    async def _send_get(self, key: str) -> bytes:
        self.gets += 1
        async with self._permits:
            data = await self._client.get(key)
        self.bytes_out += len(data)
        return data

    async def _send_get_range(self, key: str, start: int, length: int) -> Buffer:
        self.gets += 1
        async with self._permits:
            data = await self._client.get_range(key, start, length)
        self.bytes_out += len(data)
        return data

    async def _send_delete(self, keys: Sequence[str]) -> None:
        self.deletes += 1
        async with self._permits:
            await self._client.delete(keys)

    async def _send_list(self, folder: str, after: str) -> Sequence[ObjectMeta]:
        self.lists += 1
        async with self._permits:
            return await self._client.list(folder, after)

    # -- many ----------------------------------------------------------------------------------------------------------

    async def _retried(self, what: str, send: Callable[[], Awaitable[T]]) -> T:
        """Repeat an operation that does no harm when repeated, until it succeeds or cannot. NotFound, Unavailable."""
        backoff = self._backoff()
        for attempt in range(1, self._policy.attempts + 1):
            try:
                return await send()
            except RequestFailed as failure:
                if attempt == self._policy.attempts or not is_passing(failure):
                    raise translated(what, failure) from failure
            await self._pause(backoff)
        raise AssertionError("attempts is at least 1")

    async def _read_back(self, key: str, failure: RequestFailed) -> bytes | None:
        """What is there after a conditional put that failed; None if nothing."""
        try:
            return await self.get(key)
        except NotFound:
            return None
        except Unavailable as error:
            raise OutcomeUnknown(
                f"object {key} may or may not be created ({failure.reason}), and cannot be read back: {error}"
            ) from error

    def _backoff(self) -> Backoff:
        return Backoff(self._ids, self._policy.pause_first_s, self._policy.pause_max_s)

    async def _pause(self, backoff: Backoff) -> None:
        self.retries += 1
        await backoff.pause()

    async def _joined(self, parts: Sequence[Buffer]) -> bytes:
        """The parts as one immutable object, which the client sends without a copy."""
        if len(parts) == 1 and isinstance(parts[0], bytes):
            return parts[0]
        if sum(len(part) for part in parts) <= JOIN_INLINE_BYTES_MAX:
            return b"".join(parts)
        return await self._executor.run(b"".join, parts)


def other_than(key: str, body: bytes, found: bytes) -> StreamLakeError:
    """What is there in place of `body`. A mere beginning of it may be an upload of ours that was cut off, in a store
    that does not check what arrives: nobody may be told then that another writer was first."""
    if body.startswith(found):
        return OutcomeUnknown(
            f"object {key} holds the first {len(found)} of {len(body)} bytes: the store may have kept an upload that "
            "was cut off. Nobody can complete it under this key; delete it once nothing needs the key"
        )
    return Exists(f"object {key} exists already, and other bytes are in it")


def is_passing(failure: RequestFailed) -> bool:
    """True if the same request may succeed later: throttling, server errors, lost connections, timeouts."""
    return failure.status is None or failure.status >= 500 or failure.status in RETRYABLE_4XX


def translated(what: str, failure: RequestFailed) -> StreamLakeError:
    """The error for a request that will not be tried again."""
    if failure.reason == NO_SUCH_BUCKET:
        return Unavailable(f"cannot {what}: {NO_SUCH_BUCKET}. Create it, or correct the URL")
    if is_missing_object(failure):
        return NotFound(f"cannot {what}: it does not exist")
    if failure.status in (401, 403):
        return Unavailable(f"cannot {what}: the store refuses our keys ({failure.reason})")
    return Unavailable(f"cannot {what}: {failure.reason}")

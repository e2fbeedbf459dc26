"""Objects on S3, and on what speaks like it, through obstore.

obstore's own retry is off: after a retry it reports our own landed write as AlreadyExists. Here the operations that
can be repeated without harm are repeated, with growing, jittered pauses. A conditional put is different: *every* answer
to it but success is unknown, "already exists" included, until the object has been read back and compared.
Identical bytes count as ours: writers that must tell themselves from others put a nonce in.

Reads return what was asked for or raise; a short object is Corrupt. Nothing is cached.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from streamlake.core.errors import (
    Corrupt,
    Exists,
    Full,
    Invalid,
    NotFound,
    OutcomeUnknown,
    StreamLakeError,
    Unavailable,
)
from streamlake.core.ids import Ids
from streamlake.core.tasks import Executor
from streamlake.s3stream.object_key import checked_key
from streamlake.s3stream.objectstore import Buffer, ObjectMeta

T = TypeVar("T")

SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "azure")
JOIN_INLINE_BYTES_MAX = 1 << 20  # above it, joining parts would hold the loop too long
MULTIPART_BYTES_MIN = 64 << 20
MULTIPART_CHUNK_BYTES = 16 << 20
LIST_KEYS_MAX = 1_000_000
DELETE_KEYS_PER_REQUEST = 1000
RETRYABLE_4XX = (408, 409, 429)

STATUS = re.compile(r"status code: (\d{3})")
Failure = (BaseError, OSError)  # what obstore raises; a missing object is a FileNotFoundError


@dataclass(frozen=True, slots=True)
class S3Options:
    """What the URL does not say. Empty strings: obstore takes it from the environment, as other S3 clients do."""

    endpoint: str = ""
    region: str = ""
    access_key: str = ""
    secret_key: str = ""
    allow_http: bool = False
    path_style: bool = True
    request_timeout_s: float = 60
    connect_timeout_s: float = 5
    attempts: int = 6
    pause_first_s: float = 0.1
    pause_max_s: float = 5
    requests_in_flight_max: int = 64


class S3Store:
    def __init__(self, url: str, ids: Ids, executor: Executor, options: S3Options | None = None) -> None:
        """`url`: s3://bucket/prefix (or gs://, az://…). Invalid if it cannot be one; nothing is sent yet."""
        self._options = options or S3Options()
        self._url = url
        self._store = connect(url, self._options)
        self._ids = ids
        self._executor = executor
        self._permits = asyncio.Semaphore(self._options.requests_in_flight_max)
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
            await self._retried(f"put object {key}", lambda: self._send_put(key, body, "overwrite"))
        except Unavailable as error:
            raise OutcomeUnknown(f"{error}; the object may or may not be stored") from error

    async def create(self, key: str, parts: Sequence[Buffer]) -> None:
        """See ObjectStore.create. An object with the very same bytes is taken for our own, landed earlier."""
        checked_key(key)
        body = await self._joined(parts)
        last: Exception | None = None
        for attempt in range(self._options.attempts):
            if attempt:
                await self._pause(attempt)
            try:
                await self._send_put(key, body, "create")
                return
            except Failure as error:
                last = error
            found = await self._read_back(key)
            if found == body:
                return
            if found is not None:
                raise Exists(f"object {key} exists already, and other bytes are in it")
            # Absent: put the same bytes again. Safe: if the first put is only late, one of the two is refused, and
            # what is found then are these bytes.
        raise OutcomeUnknown(f"object {key} may or may not be created: {brief(last)}")

    async def get(self, key: str) -> bytes:
        """See ObjectStore.get."""
        checked_key(key)
        return await self._retried(f"get object {key}", lambda: self._send_get(key))

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """See ObjectStore.get_range."""
        if start < 0 or length < 0:
            raise Invalid(f"range of {length} bytes from {start} of object {key}")
        checked_key(key)
        return await self._retried(f"get object {key}", lambda: self._send_get_range(key, start, length))

    async def delete(self, keys: Sequence[str]) -> None:
        """See ObjectStore.delete."""
        for at in range(0, len(keys), DELETE_KEYS_PER_REQUEST):
            some = [checked_key(key) for key in keys[at : at + DELETE_KEYS_PER_REQUEST]]
            try:
                await self._retried(f"delete {len(some)} objects", lambda some=some: self._send_delete(some))  # type: ignore[misc]
            except Unavailable as error:
                raise OutcomeUnknown(f"{error}; some may be deleted: delete them again") from error

    async def list(self, prefix: str) -> AsyncIterator[ObjectMeta]:
        """See ObjectStore.list. The keys are gathered and sorted first, as some stores list folder by folder; Full
        beyond LIST_KEYS_MAX keys: use narrower prefixes."""
        for meta in await self._retried(f"list objects under {prefix}", lambda: self._send_list(prefix)):
            yield meta

    async def close(self) -> None:
        """See ObjectStore.close. obstore holds no tasks; its connections end with it."""

    async def probe_conditional_writes(self) -> None:
        """Prove that the store refuses to create what exists: the object WAL and its fences stand on it.

        Unavailable if the store cannot be written to; Invalid if it ignores the condition.
        """
        key = f"probe/{self._ids.uuid().hex}"
        try:
            await self.create(key, [b"first"])
            refused = await self._refuses(key)
            await self.delete([key])
        except OutcomeUnknown as error:
            raise Unavailable(f"cannot write to {self._url}: {error}. Check endpoint, bucket and keys") from error
        if not refused:
            raise Invalid(f"{self._url} overwrites objects that it was told to create only: it cannot hold a WAL")

    async def _refuses(self, key: str) -> bool:
        try:
            await self.create(key, [b"second"])
        except Exists:
            return True
        return False

    # -- one request each ----------------------------------------------------------------------------------------------

    async def _send_put(self, key: str, body: bytes, mode: str) -> None:
        multipart = mode == "overwrite" and len(body) >= MULTIPART_BYTES_MIN
        self.puts += 2 + -(-len(body) // MULTIPART_CHUNK_BYTES) if multipart else 1
        self.bytes_in += len(body)
        put: Any = obstore.put_async  # its stubs want literal modes
        async with self._permits:
            await put(self._store, key, body, mode=mode, use_multipart=multipart, chunk_size=MULTIPART_CHUNK_BYTES)

    async def _send_get(self, key: str) -> bytes:
        self.gets += 1
        async with self._permits:
            answer = await obstore.get_async(self._store, key)
            data = (await answer.bytes_async()).to_bytes()
        if len(data) != answer.meta["size"]:
            raise Corrupt(f"object {key}: {len(data)} bytes came of {answer.meta['size']}")
        self.bytes_out += len(data)
        return data

    async def _send_get_range(self, key: str, start: int, length: int) -> bytes:
        self.gets += 1
        try:
            async with self._permits:
                if length == 0:
                    await obstore.head_async(self._store, key)
                    return b""
                data = (await obstore.get_range_async(self._store, key, start=start, length=length)).to_bytes()
        except BaseError as error:
            if status(error) != 416:  # range not satisfiable
                raise
            data = b""
        if len(data) < length:
            raise Corrupt(f"object {key} ends before byte {start + length}: it is shorter than it should be")
        self.bytes_out += len(data)
        return data

    async def _send_delete(self, keys: Sequence[str]) -> None:
        self.deletes += 1
        async with self._permits:
            try:
                await obstore.delete_async(self._store, keys)
            except FileNotFoundError:  # GCS and Azure mind a key that does not exist, and stop there
                for key in keys:
                    await self._delete_if_exists(key)

    async def _delete_if_exists(self, key: str) -> None:
        self.deletes += 1
        try:
            await obstore.delete_async(self._store, key)
        except FileNotFoundError:
            pass

    async def _send_list(self, prefix: str) -> Sequence[ObjectMeta]:
        folder = prefix.rpartition("/")[0]  # obstore lists whole path segments only
        found: list[ObjectMeta] = []
        async with self._permits:
            async for page in obstore.list(self._store, folder or None, chunk_size=1000):
                self.lists += 1
                found += [ObjectMeta(m["path"], m["size"]) for m in page if m["path"].startswith(prefix)]
                if len(found) > LIST_KEYS_MAX:
                    raise Full(f"more than {LIST_KEYS_MAX} objects under {prefix}: list narrower prefixes")
        return sorted(found, key=lambda meta: meta.key)

    # -- many ----------------------------------------------------------------------------------------------------------

    async def _retried(self, what: str, send: Callable[[], Awaitable[T]]) -> T:
        """Repeat an operation that does no harm when repeated, until it succeeds or cannot. Unavailable at the end."""
        for attempt in range(1, self._options.attempts + 1):
            try:
                return await send()
            except Failure as error:
                if attempt == self._options.attempts or not passing(error):
                    raise translated(what, error) from error
            self.retries += 1
            await self._pause(attempt)
        raise AssertionError("attempts is at least 1")

    async def _read_back(self, key: str) -> bytes | None:
        try:
            return await self.get(key)
        except NotFound:
            return None
        except Unavailable as error:
            raise OutcomeUnknown(f"object {key} may or may not be created, and cannot be read back: {error}") from error

    async def _pause(self, attempt: int) -> None:
        """Full jitter: anything up to the growing bound, so that brokers do not come back all at once."""
        bound_s = min(self._options.pause_max_s, self._options.pause_first_s * 2 ** (attempt - 1))
        await asyncio.sleep(self._ids.random.uniform(0, bound_s))

    async def _joined(self, parts: Sequence[Buffer]) -> bytes:
        """The parts as one immutable object, which obstore sends without a copy."""
        if len(parts) == 1 and isinstance(parts[0], bytes):
            return parts[0]
        if sum(len(part) for part in parts) <= JOIN_INLINE_BYTES_MAX:
            return b"".join(parts)
        return await self._executor.run(b"".join, parts)


def connect(url: str, options: S3Options) -> Any:
    """The obstore store behind a URL, its own retries off."""
    scheme = urlsplit(url).scheme
    if scheme not in SCHEMES:
        raise Invalid(
            f"object store URL {url!r}: the scheme is one of {', '.join(SCHEMES)}, or file for a local directory"
        )
    config: Mapping[str, Any] = {}
    if scheme in ("s3", "s3a"):
        config = {
            "endpoint": options.endpoint,
            "region": options.region,
            "access_key_id": options.access_key,
            "secret_access_key": options.secret_key,
        }
        config = {k: v for k, v in config.items() if v} | {"virtual_hosted_style_request": not options.path_style}
    try:
        return from_url(
            url,
            config=config,  # type: ignore[call-overload]
            client_options={
                "allow_http": options.allow_http,
                "timeout": timedelta(seconds=options.request_timeout_s),
                "connect_timeout": timedelta(seconds=options.connect_timeout_s),
            },
            retry_config={"max_retries": 0},
        )
    except (BaseError, ValueError) as error:
        raise Invalid(f"object store {url!r}: {brief(error)}") from error


def status(error: Exception) -> int | None:
    """The HTTP status in obstore's message; None if there was no answer."""
    found = STATUS.search(str(error))
    return int(found.group(1)) if found else None


def passing(error: Exception) -> bool:
    """True if the same request may succeed later: throttling, server errors, lost connections, timeouts."""
    if isinstance(error, FileNotFoundError | PermissionDeniedError | UnauthenticatedError):
        return False
    code = status(error)
    return code is None or code >= 500 or code in RETRYABLE_4XX


def translated(what: str, error: Exception) -> StreamLakeError:
    if "NoSuchBucket" in str(error):
        return Unavailable(f"cannot {what}: the bucket does not exist")
    if isinstance(error, FileNotFoundError):
        return NotFound(f"cannot {what}: it does not exist")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return Unavailable(f"cannot {what}: the store refuses our keys ({brief(error)})")
    return Unavailable(f"cannot {what}: {brief(error)}")


def brief(error: Exception | None) -> str:
    """obstore's messages run over many lines of debug output; the first one says it."""
    return str(error).partition("\n")[0][:300]

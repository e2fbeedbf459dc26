"""One request to a bucket at a time: the seam between the three outcomes (bucket.py) and the wire.

A StoreClient sends a request once and reports what came back: a result, or RequestFailed with the HTTP status, or
without one if no whole answer came. It decides nothing; the simulator has one of its own. ObstoreClient speaks to S3,
and to what speaks like it, through obstore, whose own retry is off: after a retry it reports our own landed write as
AlreadyExists. It holds no tasks; its connections end with it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store, from_url

from streamlake.core.errors import Invalid
from streamlake.s3stream.store.port import Buffer, ObjectMeta

S3_SCHEMES = ("s3", "s3a")
SCHEMES = (*S3_SCHEMES, "gs", "az", "abfs", "abfss", "azure")
LIST_PAGE_KEYS = 1000  # S3's limit
DELETE_KEYS_MAX = 1000  # S3's limit
# The server checks what arrives: without it SeaweedFS keeps an empty object of an upload that was cut off. Costs
# nothing: the same digest signs the request.
CHECKSUM = "SHA256"
MULTIPART_BYTES_MIN = 64 << 20
MULTIPART_CHUNK_BYTES = 16 << 20
NO_SUCH_BUCKET = "the bucket does not exist"  # the reason that tells this 404 from a missing object's
NO_SUCH_BUCKET_CODES = ("NoSuchBucket", "ContainerNotFound")  # S3 and GCS, Azure

STATUS = re.compile(r"status code: (\d{3})")
Failure = (BaseError, OSError)  # what obstore raises; a missing object is a FileNotFoundError
STATUS_OF_KIND: tuple[tuple[type[Exception], int], ...] = (
    (FileNotFoundError, 404),
    (AlreadyExistsError, 412),
    (PermissionDeniedError, 403),
    (UnauthenticatedError, 401),
)


class RequestFailed(Exception):
    """One request did not succeed. `status` None: no whole answer came (refused, reset, cut short, timed out)."""

    def __init__(self, reason: str, status: int | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class StoreClient(Protocol):
    """Every method may raise RequestFailed; a missing object is status 404. After a failed or cancelled change the
    object may have been changed, or may be later."""

    url: str  # for messages

    async def put(self, key: str, body: bytes, *, create: bool) -> None:
        """Store the object. `create`: only if it is absent, else status 412 (or 409 on a race)."""
        ...

    async def get(self, key: str) -> bytes:
        """The whole object; one whose body was cut short is a failure, never a result."""
        ...

    async def get_range(self, key: str, start: int, length: int) -> Buffer:
        """`length` bytes (at least 1) from `start`, fewer or none where the object ends."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete up to DELETE_KEYS_MAX objects; those that do not exist are no failure."""
        ...

    async def list(self, folder: str, after: str) -> list[ObjectMeta]:
        """The objects whose key starts with `folder` (empty, or ending with a slash) and comes behind `after` in the
        store's own order: LIST_PAGE_KEYS of them, or fewer, and then they are the last. `after` empty: from the start.
        """
        ...


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


class ObstoreClient:
    def __init__(self, url: str, options: S3Options) -> None:
        """`url`: s3://bucket/prefix (or gs://, az://…). Invalid if it cannot be one; nothing is sent yet."""
        self.url = url
        self._store = connect(url, options)

    async def put(self, key: str, body: bytes, *, create: bool) -> None:
        """See StoreClient.put. A large body that may replace an object goes in parts: see put_requests."""
        multipart = is_multipart(len(body), create)
        put: Any = obstore.put_async  # its stubs want literal modes
        mode = "create" if create else "overwrite"
        try:
            await put(self._store, key, body, mode=mode, use_multipart=multipart, chunk_size=MULTIPART_CHUNK_BYTES)
        except Failure as error:
            raise failed(error) from error

    async def get(self, key: str) -> bytes:
        """See StoreClient.get."""
        try:
            answer = await obstore.get_async(self._store, key)
            data = (await answer.bytes_async()).to_bytes()
        except Failure as error:
            raise failed(error) from error
        if len(data) != answer.meta["size"]:
            raise RequestFailed(f"{len(data)} bytes came of {answer.meta['size']}", None)
        return data

    async def get_range(self, key: str, start: int, length: int) -> Buffer:
        """See StoreClient.get_range."""
        try:
            # As it came: to make bytes of it takes milliseconds of the loop for each MiB.
            return memoryview(await obstore.get_range_async(self._store, key, start=start, length=length))
        except Failure as error:
            failure = failed(error)
            if failure.status == 416:  # range not satisfiable: nothing begins at `start`
                return b""
            raise failure from error

    async def delete(self, keys: Sequence[str]) -> None:
        """See StoreClient.delete."""
        try:
            await obstore.delete_async(self._store, keys)
        except Failure as error:
            failure = failed(error)
            if not is_missing_object(failure):
                raise failure from error
            for key in keys:  # GCS and Azure mind a key that does not exist, and stop there
                await self._delete_if_exists(key)

    async def _delete_if_exists(self, key: str) -> None:
        try:
            await obstore.delete_async(self._store, key)
        except Failure as error:
            failure = failed(error)
            if not is_missing_object(failure):
                raise failure from error

    async def list(self, folder: str, after: str) -> list[ObjectMeta]:
        """See StoreClient.list."""
        pages = obstore.list(self._store, folder or None, offset=after or None, chunk_size=LIST_PAGE_KEYS)
        try:
            async for page in pages:
                return [ObjectMeta(meta["path"], meta["size"]) for meta in page]
        except Failure as error:
            raise failed(error) from error
        return []


def is_multipart(body_bytes: int, create: bool) -> bool:
    """A conditional put is one request whatever its size: its parts could not be told from another writer's."""
    return not create and body_bytes >= MULTIPART_BYTES_MIN


def put_requests(body_bytes: int, create: bool) -> int:
    """How many requests a put is: one, or a start, the parts and a completion."""
    return 2 + -(-body_bytes // MULTIPART_CHUNK_BYTES) if is_multipart(body_bytes, create) else 1


def connect(url: str, options: S3Options) -> Any:
    """The obstore store behind a URL, its own retries off."""
    scheme = urlsplit(url).scheme
    if scheme not in SCHEMES:
        raise Invalid(
            f"object store URL {url!r}: the scheme is one of {', '.join(SCHEMES)}, or file for a local directory"
        )
    connection: dict[str, Any] = {
        "client_options": {
            "allow_http": options.allow_http,
            "timeout": timedelta(seconds=options.request_timeout_s),
            "connect_timeout": timedelta(seconds=options.connect_timeout_s),
        },
        "retry_config": {"max_retries": 0},
    }
    try:
        return _s3(url, options, connection) if scheme in S3_SCHEMES else from_url(url, **connection)
    except (BaseError, ValueError) as error:
        raise Invalid(f"object store {url!r}: {brief(error)}") from error


def _s3(url: str, options: S3Options, connection: Mapping[str, Any]) -> Any:
    """What the options say wins over the environment."""
    place = urlsplit(url)
    if not place.netloc:
        raise ValueError("it names no bucket: write s3://BUCKET, or s3://BUCKET/PREFIX")
    given = bool(options.access_key and options.secret_key)
    credentials: Any = given_keys(options.access_key, options.secret_key) if given else None
    config: dict[str, Any] = {
        **given_endpoint(options.endpoint),
        "region": options.region,
        "access_key_id": "" if given else options.access_key,
        "secret_access_key": "" if given else options.secret_key,
        "checksum_algorithm": CHECKSUM,
    }
    known: Any = {k: v for k, v in config.items() if v} | {"virtual_hosted_style_request": not options.path_style}
    prefix = unquote(place.path).strip("/") or None
    return S3Store(place.netloc, prefix=prefix, config=known, credential_provider=credentials, **connection)


def given_endpoint(endpoint: str) -> dict[str, str]:
    """obstore's config for an S3 endpoint that wins over the environment: of the two keys the second one does, and it
    may be there."""
    return {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint}


def given_keys(access_key: str, secret_key: str, token: str | None = None) -> Callable[[], Any]:
    """obstore's credentials of S3. A function and no config, because a session token of the environment would be added
    to keys that are given without one."""
    keys = {"access_key_id": access_key, "secret_access_key": secret_key, "token": token, "expires_at": None}
    return partial(dict, keys)


def failed(error: Exception) -> RequestFailed:
    """obstore's error as ours. The status stands in its message, or shows in its kind."""
    text = str(error)
    if any(code in text for code in NO_SUCH_BUCKET_CODES):
        return RequestFailed(NO_SUCH_BUCKET, 404)
    found = STATUS.search(text)
    if found:
        return RequestFailed(brief(error), int(found.group(1)))
    return RequestFailed(brief(error), next((code for kind, code in STATUS_OF_KIND if isinstance(error, kind)), None))


def is_missing_object(failure: RequestFailed) -> bool:
    return failure.status == 404 and failure.reason != NO_SUCH_BUCKET


def brief(error: Exception) -> str:
    """obstore's messages run over many lines of debug output; the first one says it."""
    return str(error).partition("\n")[0][:300]

"""A bucket with files of tables, through obstore: one PUT a file up to 64 MiB, parts beyond.

A request whose answer is lost is repeated. For a PUT that is safe: names of an Iceberg table's files hold a uuid and
are never used twice, so whenever a late first PUT lands, it stores the same bytes again. A file that must not be there
yet is a conditional PUT, and any answer to it but success is compared with what is there: our own bytes are ours,
landed earlier.

Errors are the ones that PyIceberg's callers know: FileNotFoundError, FileExistsError, PermissionError, OSError; the
last two are BucketErrors.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import obstore

from streamlake.catalogs.files.connect import connect, of_stores
from streamlake.s3stream.store.client import (
    MULTIPART_CHUNK_BYTES,
    NO_SUCH_BUCKET,
    failed,
    is_missing_object,
    is_multipart,
)
from streamlake.s3stream.store.client import (
    Failure as ObstoreError,
)

CREATE_ATTEMPTS = 3  # each with the client's own retries
REFUSED = (400, 401, 403)  # by a store that will not think better of it
BUCKETS_MAX = 64  # that are kept, each with its connections

Failure = (*ObstoreError, ValueError)  # a ValueError: obstore has no such keys, as with two slashes in a row


class BucketError(OSError):
    """The store did not do it, or nobody knows whether it did."""


class BucketRefuses(BucketError, PermissionError):
    """Not with these credentials."""


class Bucket:
    """`place`: scheme://netloc, which stands before the keys."""

    def __init__(self, place: str, store: Any) -> None:
        self.place = place
        self._store = store
        self._conditional = True  # until it says that it knows no conditional PUT

    def read(self, key: str) -> bytes:
        try:
            answer = obstore.get(self._store, key)
            data = bytes(answer.bytes())
        except Failure as error:
            raise self._problem("read", key, error) from None
        return self._whole(key, data, int(answer.meta["size"]))

    def read_beginning(self, key: str, size_bytes: int) -> tuple[bytes, int]:
        """So many bytes, or all there are, and the size of the file."""
        try:
            answer = obstore.get(self._store, key, options={"range": (0, size_bytes)})
            data = bytes(answer.bytes())
        except Failure as error:
            if failed(error).status == 416:  # range not satisfiable: there is a file, and it has no bytes
                return b"", 0
            raise self._problem("read", key, error) from None
        whole_bytes = int(answer.meta["size"])
        return self._whole(key, data, min(size_bytes, whole_bytes)), whole_bytes

    def read_range(self, key: str, start: int, end: int) -> bytes:
        try:
            data = bytes(obstore.get_range(self._store, key, start=start, end=end))
        except Failure as error:
            raise self._problem("read", key, error) from None
        return self._whole(key, data, end - start)

    def size_bytes(self, key: str) -> int:
        try:
            return int(obstore.head(self._store, key)["size"])
        except Failure as error:
            raise self._problem("look for", key, error) from None

    def exists(self, key: str) -> bool:
        try:
            self.size_bytes(key)
        except FileNotFoundError:
            return False
        return True

    def put(self, key: str, data: bytes) -> None:
        """Returns when the file is stored. After an error it may be, or may be later."""
        try:
            self._send(key, data, create=False)
        except Failure as error:
            raise self._problem("write", key, error) from None

    def create(self, key: str, data: bytes) -> None:
        """The same, but FileExistsError if other bytes are there."""
        for attempt in range(1, CREATE_ATTEMPTS + 1):
            failure: Exception | None = None
            if self._conditional:
                try:
                    # Returning is what a commit relies on: the store says that it has the file, and its condition held.
                    self._send(key, data, create=True)
                    return
                except Failure as error:
                    failure = error
            try:
                found = self.read(key)
            except FileNotFoundError:
                if failure is None or failed(failure).status == 501:  # not implemented
                    # Seen to be absent. Nobody else writes it meanwhile: its name is the writer's own.
                    self._conditional = False
                    self.put(key, data)
                    return
                if attempt == CREATE_ATTEMPTS or failed(failure).status in REFUSED:
                    raise self._problem("write", key, failure) from None
                continue  # If the first PUT is only late, one of the two is refused, and what is found are these bytes.
            if found != data:
                raise FileExistsError(f"{self.place}/{key} exists already, and other bytes are in it")
            return

    def delete(self, keys: Sequence[str]) -> None:
        """In one request for a thousand files, where the store can do that. Those that do not exist are no error."""
        try:
            obstore.delete(self._store, keys)
        except Failure as error:
            if not is_missing_object(failed(error)):
                raise self._problem("delete", keys[0], error) from None
            if len(keys) > 1:  # GCS and Azure mind one that does not exist, and stop there
                for key in keys:
                    self.delete((key,))

    def list(self, folder: str) -> Iterator[str]:
        """The keys below it, at any depth."""
        try:
            for page in obstore.list(self._store, folder.rstrip("/") or None):
                yield from (found["path"] for found in page)
        except Failure as error:
            raise self._problem("list", folder, error) from None

    def _send(self, key: str, data: bytes, *, create: bool) -> None:
        put: Any = obstore.put  # its stubs want literal modes
        put(
            self._store,
            key,
            data,
            mode="create" if create else "overwrite",
            use_multipart=is_multipart(len(data), create),
            chunk_size=MULTIPART_CHUNK_BYTES,
        )

    def _whole(self, key: str, data: bytes, size_bytes: int) -> bytes:
        if len(data) != size_bytes:
            raise BucketError(f"cannot read {self.place}/{key}: {len(data)} bytes came of {size_bytes}")
        return data

    def _problem(self, act: str, key: str, error: Exception) -> OSError:
        """obstore's error as one of ours."""
        failure, location = failed(error), f"{self.place}/{key}"
        if is_missing_object(failure):
            return FileNotFoundError(f"there is no file {location}")
        if failure.reason == NO_SUCH_BUCKET:
            return BucketError(
                f"cannot {act} {location}: {failure.reason}. Create it, or correct the catalog's warehouse"
            )
        if failure.status in (401, 403):
            return BucketRefuses(
                f"cannot {act} {location}: the store refuses the credentials. Check the keys s3.*, gcs.* or adls.* of "
                f"the catalog, and what they may do ({failure.reason})"
            )
        return BucketError(f"cannot {act} {location}: {failure.reason}")


def bucket_of(scheme: str, netloc: str, properties: Mapping[str, Any]) -> Bucket:
    """A catalog makes a FileIO at each load of a table: the bucket is kept for the next one, so connections stay open.
    Invalid names the key of `properties` that is wrong."""
    return _bucket(scheme, netloc, tuple(sorted(of_stores(properties).items())))


@lru_cache(BUCKETS_MAX)
def _bucket(scheme: str, netloc: str, properties: tuple[tuple[str, str], ...]) -> Bucket:
    return Bucket(f"{scheme}://{netloc}", connect(scheme, netloc, dict(properties)))

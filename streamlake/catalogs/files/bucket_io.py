"""PyIceberg's FileIO for files in buckets: s3://, gs://, abfss:// and their kin."""

import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream

from streamlake.catalogs.files.bucket import Bucket, bucket_of
from streamlake.catalogs.files.upload import Upload
from streamlake.s3stream.store.client import DELETE_KEYS_MAX

FIRST_BYTES = 1 << 20  # of a file that is opened for reading here and there: most are smaller, and so one request
READ_BYTES = 1 << 20  # at least, of any further one


class BucketFileIO(FileIO):
    """Implements Folders, too."""

    def new_input(self, location: str) -> InputFile:
        return BucketInputFile(location, self._bucket(location))

    def new_output(self, location: str) -> OutputFile:
        return BucketOutputFile(location, self._bucket(location))

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """A bucket does not tell whether there was such a file, so there is no error if there was none."""
        self.delete_files((location if isinstance(location, str) else location.location,))

    def list_files(self, folder: str) -> Iterator[str]:
        """See Folders."""
        bucket = self._bucket(folder)
        return (f"{bucket.place}/{key}" for key in bucket.list(key_of(folder)))

    def delete_files(self, locations: Iterable[str]) -> None:
        """See Folders."""
        of_place: dict[tuple[str, str], list[str]] = defaultdict(list)
        for location in locations:
            of_place[urlsplit(location)[:2]].append(location)
        for some in of_place.values():
            bucket = self._bucket(some[0])
            for at in range(0, len(some), DELETE_KEYS_MAX):
                bucket.delete([key_of(location) for location in some[at : at + DELETE_KEYS_MAX]])

    def delete_folder(self, folder: str) -> None:
        """See Folders."""
        self.delete_files(self.list_files(folder))

    def _bucket(self, location: str) -> Bucket:
        scheme, netloc = urlsplit(location)[:2]
        return bucket_of(scheme, netloc, self.properties)


class _BucketFile:
    """What one to read and one to write have in common."""

    def __init__(self, location: str, bucket: Bucket) -> None:
        super().__init__(location)  # type: ignore[call-arg]  # of InputFile or OutputFile, which comes after this class
        self._bucket = bucket
        self._key = key_of(location)

    def __len__(self) -> int:
        return self._bucket.size_bytes(self._key)

    def exists(self) -> bool:
        return self._bucket.exists(self._key)


class BucketInputFile(_BucketFile, InputFile):
    def open(self, seekable: bool = True) -> InputStream:
        """A file that is small, or read in one go, is one request."""
        if not seekable:
            return io.BytesIO(self._bucket.read(self._key))
        beginning, size_bytes = self._bucket.read_beginning(self._key, FIRST_BYTES)
        if len(beginning) == size_bytes:
            return io.BytesIO(beginning)
        return io.BufferedReader(Pieces(partial(self._bucket.read_range, self._key), beginning, size_bytes), READ_BYTES)


class BucketOutputFile(_BucketFile, OutputFile):
    def to_input_file(self) -> InputFile:
        return BucketInputFile(self.location, self._bucket)

    def create(self, overwrite: bool = False) -> OutputStream:
        """Without `overwrite` the store itself refuses a file that exists, when the stream is closed."""
        return Upload(partial(self._bucket.put if overwrite else self._bucket.create, self._key))


class Pieces(io.RawIOBase):
    """A file that is read piece by piece, behind a buffer. `get` brings the bytes between two offsets; `beginning` is
    here already."""

    def __init__(self, get: Callable[[int, int], bytes], beginning: bytes, size_bytes: int) -> None:
        super().__init__()
        self._get = get
        self._beginning = beginning
        self._size_bytes = size_bytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        if start + offset < 0:
            raise ValueError(f"position {start + offset} lies before the file")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        parts = []
        while data := self._next(self._size_bytes):
            parts.append(data)
        return b"".join(parts)

    def _next(self, size_bytes: int) -> bytes:
        end = min(self._at + size_bytes, self._size_bytes)
        if self._at >= end:
            return b""
        data = self._beginning[self._at : end] if self._at < len(self._beginning) else self._get(self._at, end)
        self._at += len(data)
        return data


def key_of(location: str) -> str:
    return urlsplit(location).path.lstrip("/")

"""The files of one commit: written into memory, then put at once.

pyiceberg writes manifests through a FileIO one after the other, with a request or two more for each. Here it writes
into memory, and data files, manifests and manifest list go out in parallel: one round trip before the commit.
"""

import asyncio
import io
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from pyiceberg.io import FileIO, InputFile, OutputFile, OutputStream

from streamlake.core.tasks import Executor


class StagedIO(FileIO):
    """Writes into `staged` (location → bytes), reads from `base`."""

    def __init__(self, base: FileIO) -> None:
        super().__init__(base.properties)
        self.base = base
        self.staged: dict[str, bytes] = {}

    def new_input(self, location: str) -> InputFile:
        return self.base.new_input(location)

    def new_output(self, location: str) -> OutputFile:
        return StagedOutput(location, self)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        self.base.delete(location)


class StagedOutput(OutputFile):
    def __init__(self, location: str, files: StagedIO) -> None:
        super().__init__(location)
        self._files = files

    def __len__(self) -> int:
        return len(self._files.staged[self.location])

    def exists(self) -> bool:
        return self.location in self._files.staged

    def to_input_file(self) -> InputFile:
        return self._files.new_input(self.location)

    def create(self, overwrite: bool = False) -> OutputStream:
        return StagedStream(self.location, self._files.staged)


class StagedStream(io.BytesIO):
    def __init__(self, location: str, staged: dict[str, bytes]) -> None:
        super().__init__()
        self._location = location
        self._staged = staged

    def close(self) -> None:
        if not self.closed:
            self._staged[self._location] = self.getvalue()
        super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def put(files: FileIO, location: str, data: Any) -> None:
    """Write one whole file; when it returns the file is durable by the rules of its store. Names are never reused, so
    `overwrite` only spares the request that asks whether the file exists."""
    with files.new_output(location).create(overwrite=True) as stream:
        stream.write(data)


async def put_all(executor: Executor, files: FileIO, blobs: Mapping[str, Any]) -> None:
    """Put all at once. The first error is raised after all have ended, so nothing is left in flight."""
    results = await asyncio.gather(
        *(executor.run(put, files, location, data) for location, data in blobs.items()), return_exceptions=True
    )
    for result in results:
        if isinstance(result, BaseException):
            raise result

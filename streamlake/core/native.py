"""Native kernels are optional: where one cannot be imported, its plain-Python twin does the same work, slower.

A kernel is missing when StreamLake was installed without a C compiler. This is said once for each kernel, on stderr by
Python's own logging, because kernels are imported before structlog is configured.
"""

import importlib
import logging
from typing import Any

# Extension module → what it does, for people. pyproject.toml says how they are compiled.
KERNELS = {
    "streamlake.record.kernel": "records",
    "streamlake.record.run_kernel": "batches",
    "streamlake.protocol.head_kernel": "requests",
    "streamlake.s3stream.wal.file.flush_kernel": "flush",
    "streamlake.table.formats.avro.kernel": "avro",
    "streamlake.table.formats.json.kernel": "json",
    "streamlake.table.formats.protobuf.kernel": "protobuf",
}

log = logging.getLogger(__name__)


def load(name: str) -> Any:
    """The compiled module `name`, or None if there is none that works here."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        log.warning("no native kernel %s (%s): its slower Python twin is used", name, error)
        return None


def compiled() -> dict[str, bool]:
    """Each kernel in a word, and whether it is there."""
    return {what: _is_there(name) for name, what in KERNELS.items()}


def _is_there(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:  # who needs it has said so
        return False
    return True

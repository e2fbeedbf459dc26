"""Protobuf in the registry: parses the text of a schema in a helper process, and measures it.

Two texts are the same schema, and get the same id, if they differ only in comments, white space, or how they spell
names of types; so do a text and the descriptor that a client made of it. The text that comes first is kept as it is.
"""

import base64
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import PurePosixPath

import msgspec

from streamlake.core.errors import Invalid, Unavailable
from streamlake.registry.port import Document, File, Parsed
from streamlake.registry.protobuf.helper import REFUSED, Answer, Task

HELPER = "streamlake.registry.protobuf.helper"
TIMEOUT_S = 60.0  # of the wall: the helper limits its processor seconds
ERROR_CHARS_MAX = 1_000
NAME_CHARS_MAX = 255

_NOISE = re.compile(r"^(WARNING: |[WI]\d{4} ).*\n", re.MULTILINE)  # protoc's log


def parse_schema(text: str, files: Mapping[str, File], normalize: bool = False) -> Parsed:
    """Raises Invalid, and Unavailable if the helper cannot be run."""
    if not text.strip():
        raise Invalid("the schema is empty")
    for name in files:
        _check_name(name)
    with tempfile.TemporaryDirectory(prefix="streamlake-protobuf-") as folder:
        task = Task(text, {name: (file.text, file.compiled or b"") for name, file in files.items()}, normalize, folder)
        answer = _run(task)
    return Parsed(answer.text, answer.canonical, answer.compiled)


def serialized(document: Document) -> str:
    """The file as a FileDescriptorProto in base64, as confluent-kafka for Python reads schemas."""
    return base64.b64encode(document.compiled or b"").decode()


def _run(task: Task) -> Answer:
    try:
        asked = msgspec.json.encode(task)
        done = subprocess.run([sys.executable, "-m", HELPER], input=asked, capture_output=True, timeout=TIMEOUT_S)
    except UnicodeEncodeError:
        raise Invalid("the schema is not text: it has half of a surrogate pair") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"the schema was not parsed within {TIMEOUT_S:.0f} s: try again") from None
    except OSError as error:
        raise Unavailable(f"the process that parses schemas cannot be started: {error}") from None
    if done.returncode == 0:
        return msgspec.json.decode(done.stdout, type=Answer)
    said = _NOISE.sub("", done.stderr.decode(errors="replace")).replace(f"{task.folder}/", "").strip()
    if done.returncode == REFUSED:
        raise Invalid(f"not a valid Protobuf schema: {said[:ERROR_CHARS_MAX]}")
    if done.returncode < 0 or "MemoryError" in said:
        raise Invalid("the schema takes more memory or time to parse than it may: make it smaller")
    raise Invalid(f"the schema cannot be parsed, because the parser failed: {said[-ERROR_CHARS_MAX:]}")


def _check_name(name: str) -> None:
    """Names become paths below a folder of their own."""
    parts = name.split("/")
    sound = name.isprintable() and "\\" not in name and not any(part in ("", ".", "..") for part in parts)
    if not sound or len(name) > NAME_CHARS_MAX or PurePosixPath(name).is_absolute():
        raise Invalid(f"the reference {name[:50]!r} is not the path of a .proto file, like common/money.proto")

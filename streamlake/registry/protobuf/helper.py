"""The helper process: parses one Protobuf schema from stdin under limits of memory and time, and ends.

Asked and answered in JSON. Exit code 0: the answer is on stdout. REFUSED: what is wrong with the schema is on stderr.
Any other, or a signal: a limit.
"""

import resource
import sys
from pathlib import Path

import msgspec

MEMORY_BYTES = 1 << 30  # of address space
PROCESSOR_S = 10
FILE_BYTES_MAX = 16 << 20
REFUSED = 65


class Task(msgspec.Struct):
    text: str
    files: dict[str, tuple[str, bytes]]  # name → text, compiled
    normalize: bool
    folder: str  # an empty one, that the parent deletes


class Answer(msgspec.Struct):
    text: str
    canonical: str
    compiled: bytes


def main() -> int:
    for limit, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, PROCESSOR_S),
        (resource.RLIMIT_FSIZE, FILE_BYTES_MAX),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))
    # Under the limits, as what they load is not small.
    from streamlake.core.errors import Invalid
    from streamlake.registry.port import File
    from streamlake.registry.protobuf.parse import Refused, parse

    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    files = {name: File(text, compiled) for name, (text, compiled) in task.files.items()}
    try:
        parsed = parse(task.text, files, task.normalize, Path(task.folder))
    except Refused:
        return REFUSED
    except Invalid as error:
        print(error, file=sys.stderr)
        return REFUSED
    answer = Answer(parsed.text, parsed.canonical, parsed.compiled or b"")
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())

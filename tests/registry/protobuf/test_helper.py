"""The helper as the registry runs it: a process."""

import subprocess
import sys
from pathlib import Path

import msgspec

from streamlake.registry.protobuf.helper import REFUSED, Answer, Task
from streamlake.registry.protobuf.schema import HELPER


def run(text: str, folder: Path, *command: str) -> subprocess.CompletedProcess[bytes]:
    task = msgspec.json.encode(Task(text, {"a.proto": ("message A {}", b"\n\x00")}, False, str(folder)))
    return subprocess.run([sys.executable, *(command or ("-m", HELPER))], input=task, capture_output=True)


def test_it_answers(tmp_path: Path) -> None:
    done = run('syntax = "proto3"; message M {}', tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert msgspec.json.decode(done.stdout, type=Answer).canonical.startswith('syntax = "proto3";\nmessage M {')


def test_it_says_what_is_wrong(tmp_path: Path) -> None:
    done = run("message {", tmp_path)
    assert done.returncode == REFUSED
    assert b"Expected message name" in done.stderr


def test_it_ends_when_it_needs_too_much(tmp_path: Path) -> None:
    limited = f"from {HELPER.rpartition('.')[0]} import helper; helper.MEMORY_BYTES = 40 << 20; raise SystemExit(helper.main())"
    fields = "".join(f"int32 f{n} = {n};" for n in range(1, 15_000))
    text = f'syntax = "proto3"; message M {{ {fields} }} message N {{ {fields} }}'
    assert run(text, tmp_path, "-c", limited).returncode not in (0, REFUSED)
    assert run(text, tmp_path).returncode == 0


def test_it_writes_no_large_files(tmp_path: Path) -> None:
    done = run("/*" + "x" * (17 << 20) + "*/", tmp_path)
    assert done.returncode not in (0,)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 17 << 20

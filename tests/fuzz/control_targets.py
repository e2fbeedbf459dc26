"""Text and JSON that steer us: control lines between server and worker, what the table's own properties say, the answer of
a schema registry, configuration files and variables; and the sequences that a client of fetch sessions may send."""

import asyncio
import json
import random
import tempfile
from pathlib import Path
from uuid import UUID

import msgspec
from fuzz.target import MIB, Target, run_async

from streamlake import config
from streamlake.catalogs.config import CatalogConfig
from streamlake.core.clock import SystemClock
from streamlake.core.errors import Corrupt, Invalid, NotFound, Unavailable
from streamlake.core.ids import Ids
from streamlake.handlers.fetch_session import FetchSessions, to_send
from streamlake.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic, ForgottenTopic, PartitionData
from streamlake.table.commit import progress
from streamlake.table.rows import field_map
from streamlake.table.task import control
from streamlake.worker.schema_source import HttpSchemaSource

_TOPIC = UUID(int=3)

JSON_TOKENS = (
    b"null", b"true", b"-1", b"0", b"1", b"3.5", b"1e400", b"-0", b"9223372036854775808", b"9" * 5000, b"[]", b"{}",
    b'""', b'"x"', b'"\\ud800"', b'"\xff"', b"\xed\xa0\x80", b'"\\u0000"', b"NaN", b",", b":", b"]", b"}", b"\n", b'"type"',
)  # fmt: skip

# -- control lines -----------------------------------------------------------------------------------------------------

_KINDS = (control.WorkerSettings, control.FromServer, control.FromWorker)


def line_seeds() -> list[bytes]:
    """The first byte says which message the reader waits for."""
    settings = control.WorkerSettings(
        "h",
        1,
        2,
        "http://r",
        "c",
        5,
        6,
        "info",
        True,
        {"n": CatalogConfig("sql", "n", {"uri": "x", "deep": {"a": [1]}})},
        "n",
    )
    spec = control.TableSpec("t", _TOPIC, 3, {"a": "b"}, True, 7, 1)
    report = control.TableReport(
        "t", _TOPIC, "n.t", "running", "m", (1, 2), (0, 0), True, 5, {"control": 2}, last_commit_ms=3
    )
    call, answer = control.CatalogCall(1, "POST", "v1/x", "a=b", b"{}", "t", True), control.CatalogAnswer(1, 200, b"{}")
    lines = [settings, control.FromServer([spec, spec]), control.FromServer([]), control.FromWorker(report)]
    lines += [control.FromServer(call=call), control.FromWorker(answer=answer)]
    return [bytes([_KINDS.index(type(line))]) + control.encode(line) for line in lines] + [
        b"\x01" + control.encode(lines[1]) * 2
    ]


def check_line(data: bytes) -> None:
    run_async(_read_lines(_KINDS[data[0] % 3] if data else _KINDS[0], data[1:]))


async def _read_lines(kind: type[msgspec.Struct], data: bytes) -> None:
    reader = asyncio.StreamReader(limit=control.LINE_BYTES_MAX)
    reader.feed_data(data)
    reader.feed_eof()
    try:
        while (message := await control.read_message(reader, kind)) is not None:
            assert type(message) is kind
    except Corrupt:
        pass


# -- what tables hold --------------------------------------------------------------------------------------------------


def progress_seeds() -> list[bytes]:
    """The first byte: a progress or a bookmark."""
    made = progress.Progress("c", "t", str(_TOPIC), 3, 4, (5, 6), {"control": 1})
    bookmark = progress.Bookmark(77, 5, made)
    return [b"\x00" + msgspec.json.encode(made), b"\x01" + msgspec.json.encode(bookmark)]


def check_progress(data: bytes) -> None:
    text = data[1:].decode("utf-8", "replace")
    try:
        if data[:1] == b"\x01":
            found = progress._decode(text, progress.Bookmark).progress
            progress._check(found)
        else:
            found = progress._progress(text)
    except Invalid:
        return
    assert isinstance(found.rows, int) and all(n >= 0 for n in found.next)


def map_seeds() -> list[bytes]:
    made = {("row", "value"): 1, ("value", "a"): 2, (2, "b"): 3}
    return [field_map.encode({field_map.key_of(root, name): n for (root, name), n in made.items()}).encode(), b"{}"]


def check_map(data: bytes) -> None:
    try:
        field_map.decode(data.decode("utf-8", "replace"))
    except Corrupt:
        pass


# -- a schema registry's answer ----------------------------------------------------------------------------------------


class _Answer:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def __enter__(self) -> "_Answer":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    length = 0

    def read1(self, size: int) -> bytes:
        found, self._body = self._body[:size], self._body[size:]
        return found

    def open(self, _url: str, timeout: float) -> "_Answer":
        return self


def registry_answers() -> list[bytes]:
    return [
        json.dumps(a).encode() for a in ({"schema": '"string"'}, {"schemaType": "AVRO", "schema": "{}"}, {"schema": 5})
    ]


def check_registry_answer(data: bytes) -> None:
    source = HttpSchemaSource("http://registry", SystemClock())
    source._opener = _Answer(data)  # type: ignore[assignment]
    try:
        assert isinstance(source.get(7).text, str)
    except (NotFound, Invalid, Unavailable):
        pass


# -- configuration -----------------------------------------------------------------------------------------------------

TOML = b"""[server]
port = 9093
host = "0.0.0.0"
shutdown_timeout_s = 2.5
[storage]
data_dir = "x"
url = "s3://bucket/prefix"
wal_capacity_bytes = 4194304
wal_segment_bytes = 65536
[kafka]
num.partitions = 3
log.retention.ms = -1
"auto.create.topics.enable" = true
[logging]
level = "debug"
"""
VARIABLES = b"STREAMLAKE_SERVER_PORT=9094\nSTREAMLAKE_LOGGING_LEVEL=info\nSTREAMLAKE_TABLES_ENABLED=false"
TOML_TOKENS = (
    *JSON_TOKENS, b"[[server]]", b"[kafka.a]", b"server", b"storage", b"a." * 3000 + b"b = 1", b"1979-05-27", b"0x" + b"f" * 5000,
    b"inf", b"'''", b"{a = 1}", b"=", b"tables", b"enabled", b"port", b"STREAMLAKE_SERVER_PORT=x", b"STREAMLAKE_KAFKA_X=1",
)  # fmt: skip


def config_seeds() -> list[bytes]:
    """A file, a zero byte, environment variables."""
    return [TOML + b"\0", b"\0" + VARIABLES, TOML + b"\0" + VARIABLES, b"server = 5\n\0" + VARIABLES]


def check_config(data: bytes) -> None:
    file, _, variables = data.partition(b"\0")
    environ = dict(line.partition("=")[::2] for line in variables.decode("utf-8", "surrogateescape").split("\n"))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "streamlake.toml"
        path.write_bytes(file)
        try:
            config.load(path, environ, {"server": {"port": None}})
        except Invalid as error:
            assert len(str(error)) < 1000 + 20 * len(data)


# -- fetch sessions ----------------------------------------------------------------------------------------------------

SESSIONS_MAX, PARTITIONS_MAX = 3, 12
STEPS_MAX = 200


def session_seeds() -> list[bytes]:
    """Four bytes a step: which session, which epoch, which partitions are added, which are forgotten."""
    rng = random.Random(9)
    steady = bytes([0, 0, 3, 0] + [1, 1, 1, 0] * 5 + [1, 1, 0, 1, 1, 2, 0, 0])
    return [steady, *(rng.randbytes(4 * n) for n in (1, 5, 30, 100))]


def check_sessions(data: bytes) -> None:
    """Limits hold after every step, and the books of remembered partitions are right."""
    sessions = FetchSessions(Ids(1), SESSIONS_MAX, PARTITIONS_MAX)
    known: list[int] = [0]
    for at in range(0, min(len(data), 4 * STEPS_MAX) - 3, 4):
        which, how, added, forgotten = data[at : at + 4]
        session_id = known[which % len(known)]
        held = sessions._sessions.get(session_id)
        epochs = [0, held.next_epoch if held else 1, -1, 2**31 - 1, -5, held.next_epoch if held else 0]
        if held and how == 255:
            held.next_epoch = 2**31 - 1
        request = FetchRequest(
            session_id=session_id,
            session_epoch=epochs[how % len(epochs)],
            topics=(
                FetchTopic(topic="t", partitions=tuple(FetchPartition(partition=n % 7) for n in range(added % 16))),
            ),
            forgotten_topics_data=(ForgottenTopic(topic="t", partitions=tuple(range(forgotten % 16))),),
        )
        session = sessions.resolve(request)
        answers = [(key, PartitionData(partition_index=key[2], high_watermark=how)) for key in session.wanted]
        assert len(to_send(session, answers)) <= len(answers)
        if session.session_id:
            known = [*known, session.session_id][-6:]
        assert len(sessions) <= SESSIONS_MAX and sessions._partitions <= PARTITIONS_MAX
        assert sessions._partitions == sum(len(s.wanted) for s in sessions._sessions.values())


TARGETS = [
    Target("control line", line_seeds, check_line, JSON_TOKENS),
    Target("progress", progress_seeds, check_progress, JSON_TOKENS),
    Target("field map", map_seeds, check_map, JSON_TOKENS),
    Target("registry answer", registry_answers, check_registry_answer, JSON_TOKENS),
    Target("configuration", config_seeds, check_config, TOML_TOKENS, memory_bytes=256 * MIB),
    Target("fetch sessions", session_seeds, check_sessions),
]

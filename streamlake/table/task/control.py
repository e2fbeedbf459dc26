"""The control protocol between the server and its table worker: one JSON object a line, over a pipe or socket.

server → worker   WorkerSettings                 once, the first line
server → worker   {"tables": [TableSpec, …]}    the whole set, whenever it changes
server → worker   {"call": CatalogCall}         a request to the Iceberg REST catalog, which the worker serves
server → worker   {"table_call": TableCall}     a request about one table
worker → server   {"report": TableReport}       after each round of a table, and when its state changes
worker → server   {"answer": CatalogAnswer}     to a call, in any order

The end of the stream is a message too: the other side is gone. A worker then exits, because an orphan would only race
its successor. Lines are bounded; a line that is too long or not one of these messages is Corrupt and ends the talk.
"""

import asyncio
from typing import Literal, TypeVar
from uuid import UUID

import msgspec

from streamlake.catalogs.config import CatalogConfig
from streamlake.core.errors import Corrupt

LINE_BYTES_MAX = 16 << 20
FORCE_HEADER = "X-StreamLake-Force"  # HTTP; `true` makes CatalogCall.forced

M = TypeVar("M", bound=msgspec.Struct)


class S3AccessSettings(msgspec.Struct, frozen=True):
    """What clients of the Iceberg REST catalog get for the files of tables in S3, if they ask. `own_urls`: where the
    server keeps its log."""

    vends: Literal["no", "short-lived", "long-lived"] = "no"
    signs: bool = False
    sts_role: str = ""
    sts_endpoint: str = ""
    own_urls: tuple[str, ...] = ()


class RegistryAccess(msgspec.Struct, frozen=True):
    """How a schema registry is reached that is not the server's own: by a token, or a name and a password, or neither.
    The files are PEM; an empty `ca_file` trusts what the system trusts."""

    username: str = ""
    password: str = ""
    token: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.password, self.token)))


class WorkerSettings(msgspec.Struct, frozen=True):
    """How a worker reaches what it needs. It comes over the pipe and not as arguments, as it may hold secrets."""

    bootstrap_host: str
    bootstrap_port: int
    node_id: int  # of the server at that address
    registry_url: str
    cluster_id: str
    memory_bytes: int
    round_bytes: int
    log_level: str
    log_json: bool
    catalogs: dict[str, CatalogConfig]
    default_catalog: str
    s3_access: S3AccessSettings = S3AccessSettings()
    registry_access: RegistryAccess | None = None  # None: it is the server's own


class TableSpec(msgspec.Struct, frozen=True):
    """A topic that is a table. `configs`: its `streamlake.table.*` configs by canonical key. `committed_once`: a
    snapshot was ever reported. `committer_epoch`: greater at each start of a worker. `incarnation`: of the table, to
    be sent back in its reports."""

    topic: str
    topic_id: UUID
    partitions: int
    configs: dict[str, str]
    committed_once: bool
    committer_epoch: int
    incarnation: int


class RedriveReport(msgspec.Struct, frozen=True):
    """The redrive that a table had last, since its worker started. `state`: running, done, failed (`message` says why).
    `found`: were rows already, by an attempt that was not finished. `still_dead`: cannot be rows now, either.
    `files_left`: of the dead-letter table, to be looked at. `asked_ms`: when it was asked for, which tells it from
    others."""

    state: str
    reasons: tuple[str, ...]
    redriven: int = 0
    found: int = 0
    still_dead: int = 0
    files_left: int = 0
    message: str = ""
    asked_ms: int = 0


class TableReport(msgspec.Struct, frozen=True):
    """The state of a table. Lists have one number per partition; partitions beyond their end are at 0.

    `state`: starting, running, retrying (a dependency is down: `message` says which), failed (a person must act:
    `message` says how), unreadable (files of the table are gone: `message` says which), fenced (a newer worker has
    taken over). `maintenance`: since when and why it fails, empty if it works; rows are committed either way.
    `catalog`: by its name in the configuration; all else is of the table there. `incarnation`: as in its TableSpec.
    `positions`: next log position that the table does not cover. `hold`: retention may delete below it; a round behind
    `positions`. `lag`: positions that could be read and are not in the table. `rows`, `skipped`: since the table began.
    `rest_rows`: with values in the column `_rest`, since the worker opened the table. `dead_letter_reasons`: dead
    letters by reason, since then. `waiting_for`: what has to come before there is a table.
    """

    topic: str
    topic_id: UUID
    table: str
    state: str
    message: str = ""
    positions: tuple[int, ...] = ()
    hold: tuple[int, ...] = ()
    committed_once: bool = False
    rows: int = 0
    skipped: dict[str, int] = {}
    dead_letters: int = 0
    rest_rows: int = 0
    lag: int = 0
    commits: int = 0
    conflicts: int = 0
    maintenance: str = ""
    maintenance_failures: int = 0
    last_commit_ms: int | None = None
    last_commit_duration_ms: int | None = None
    metadata_location: str | None = None
    dead_letter_table: str | None = None
    dead_letter_metadata_location: str | None = None
    catalog: str = ""
    incarnation: int = 0
    dead_letter_reasons: dict[str, int] = {}
    waiting_for: str = ""
    redrive: RedriveReport | None = None


class CatalogCall(msgspec.Struct, frozen=True):
    """One HTTP request below `/iceberg`, already authenticated. `path` and `query` are still percent-encoded. `etag` is
    the header If-None-Match. `forced`: the client insists on what the guard of topics' tables refuses. `delegation`:
    the header X-Iceberg-Access-Delegation, how it would like to reach the files of tables."""

    number: int
    method: str
    path: str
    query: str = ""
    body: bytes = b""
    etag: str = ""
    forced: bool = False
    delegation: str = ""


class TableCall(msgspec.Struct, frozen=True):
    """A request about the table of one topic, already authenticated; it is answered by a CatalogAnswer, too."""

    number: int
    spec: TableSpec
    action: Literal["dead_letters", "redrive", "plan"]
    arguments: dict[str, str] = {}


class CatalogAnswer(msgspec.Struct, frozen=True):
    """`body` is JSON, or empty. `etag`, `cache`: the headers ETag and Cache-Control, if there are any."""

    number: int
    status: int
    body: bytes = b""
    etag: str = ""
    cache: str = ""


class FromServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One of them is there."""

    tables: list[TableSpec] | None = None
    call: CatalogCall | None = None
    table_call: TableCall | None = None

    def __post_init__(self) -> None:
        if (self.tables, self.call, self.table_call).count(None) != 2:
            raise ValueError("a message of the server has tables or a call")


class FromWorker(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One of the two is there."""

    report: TableReport | None = None
    answer: CatalogAnswer | None = None

    def __post_init__(self) -> None:
        if (self.report is None) == (self.answer is None):
            raise ValueError("a message of the worker has a report or an answer")


def encode(message: WorkerSettings | FromServer | FromWorker) -> bytes:
    """One line."""
    return msgspec.json.encode(message) + b"\n"


async def read_message(reader: asyncio.StreamReader, kind: type[M]) -> M | None:
    """The next message of `kind`; None at the end of the stream, a torn last line included. Raises Corrupt.

    `reader` must have been made with `limit=LINE_BYTES_MAX`."""
    try:
        line = await reader.readuntil(b"\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    except asyncio.LimitOverrunError:
        raise Corrupt(f"a control message is longer than {LINE_BYTES_MAX} bytes") from None
    try:
        return msgspec.json.decode(line, type=kind)
    except (ValueError, RecursionError) as error:  # msgspec's errors, text that is not UTF-8, brackets without end
        raise Corrupt(f"not a control message: {error}") from None

"""Every kind of catalog on a real server that the tests start, and what each does in its own way, as data.

A test of tests/catalogs runs for each of KINDS and asks its `CatalogKind` what to expect; no test asks for a kind by name.
`CatalogKind.serve(directory)` starts the server; `connect` is the one place through which tests reach a catalog.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, RESTError, ValidationException
from support.catalog_faults import CatalogFaults, GlueFaults, HttpCatalogFaults, RestFaults, SqliteFaults
from support.hive_metastore import HiveMetastore
from support.iceberg_rest import IcebergRest
from support.nessie import Nessie
from support.postgres import Postgres
from support.seaweedfs import SeaweedFS
from support.strict_glue import StrictGlue
from support.tcp_faults import HiveWire, PostgresWire, TcpFaults
from support.wait import wait_until

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.kinds import load

NAME = "lake"

# What becomes of a table's name.
KEPT = "kept"
FOLDED = "folded to lower case"
REFUSED = "refused"
CREATED_ONLY = "created, then every commit fails"

# Names of topics and tables; Kafka allows letters, digits, dot, dash and underscore, a configured name any letter.
NAMES = {
    "lower case": "orders_v2",
    "upper case": "OrdersOfToday",
    "dot": "orders.v2",
    "dash": "orders-v2",
    "first an underscore": "_orders",
    "digits only": "2026",
    "not ASCII": "bestellungen_ü",
    "a keyword": "select",
    "140 characters": "o" * 140,
    "249 characters": "o" * 249,  # Kafka's longest
}

RESET_FAULTS = ("reset_before", "reset_after")
ERROR_FAULTS = ("error", "applied_error")
STATUS_FAULTS = tuple(f"{state}{code}" for code in (401, 409, 429, 500, 502, 503, 504) for state in ("", "applied_"))


@dataclass(frozen=True, slots=True)
class RunningCatalog:
    """A catalog that answers. `faulty` connects through something that can make chosen requests go wrong."""

    kind: str
    properties: Mapping[str, Any] = field(repr=False)
    faulty: Callable[[], AbstractContextManager[tuple[Catalog, CatalogFaults]]]

    def connect(self) -> Catalog:
        return connect(self.kind, self.properties)


@dataclass(frozen=True, slots=True)
class CatalogKind:
    """`names`: what becomes of those of NAMES that are not kept as they are. `faults`: what can happen to a request.
    `lets_remove`: its tables do not say `gc.enabled = false`. `fences_first_commit`: a commit that demands a table
    without a snapshot is refused if there is one. `append_overtaken`: what PyIceberg's own append raises if another
    commit was faster. `sent_again`: those faults after which PyIceberg, or a library of its, sends a commit once more
    by itself."""

    title: str
    serve: Callable[[Path], AbstractContextManager[RunningCatalog]]
    faults: tuple[str, ...]
    slow: bool = False  # to start: not in `make test`
    names: Mapping[str, str] = field(default_factory=dict)
    nested_namespaces: bool = True
    long_types: bool = True
    create_of_existing_is_refused: bool = True
    keeps_tags: bool = True
    keeps_history: bool = True
    lets_remove: bool = True
    fences_first_commit: bool = True
    append_overtaken: tuple[type[Exception], ...] = (CommitFailedException,)
    commit_to_dropped: type[Exception] = CommitFailedException
    sent_again: frozenset[str] = frozenset()

    @property
    def folds_case(self) -> bool:
        return FOLDED in self.names.values()

    @property
    def table_name(self) -> str:
        """For a number: as topics may be called, if the kind keeps that."""
        return "Table{}.with-dots" if all(self.fate(n) == KEPT for n in ("upper case", "dot", "dash")) else "table{}"

    def faults_by_title(self) -> dict[str, str]:
        """The faults by what a reader of the table calls them."""

        def title(fault: str) -> str:
            landed = fault.startswith("applied_") or fault == "reset_after"
            what = "connection lost" if fault in RESET_FAULTS else fault.removeprefix("applied_")
            return f"{what}, {'landed' if landed else 'not landed'}"

        return {fault: title(fault) for fault in self.faults}

    def fate(self, label: str) -> str:
        return self.names.get(label, KEPT)


def chosen() -> list[CatalogKind]:
    """Those that start in seconds, or what CATALOGS in the environment says: all, or words of titles, with commas."""
    wanted = os.environ.get("CATALOGS", "")
    if not wanted:
        return [kind for kind in KINDS if not kind.slow]
    words = [word.strip().lower() for word in wanted.split(",")]
    found = [kind for kind in KINDS if wanted == "all" or any(word in kind.title.lower() for word in words)]
    if not found:
        raise ValueError(f"CATALOGS={wanted}: there is no such kind, only all, {', '.join(k.title for k in KINDS)}")
    return found


def connect(kind: str, properties: Mapping[str, Any]) -> Catalog:
    return load(CatalogConfig(kind, NAME, properties))


# -- the servers ------------------------------------------------------------------------------------------------------


@contextmanager
def sqlite(directory: Path) -> Iterator[RunningCatalog]:
    properties = {"uri": f"sqlite:///{directory / 'catalog.db'}", "warehouse": f"file://{directory / 'warehouse'}"}

    @contextmanager
    def faulty() -> Iterator[tuple[Catalog, CatalogFaults]]:
        catalog: Any = connect("sql", properties)
        yield catalog, SqliteFaults(catalog)

    yield RunningCatalog("sql", properties, faulty)


@contextmanager
def postgres(directory: Path) -> Iterator[RunningCatalog]:
    with Postgres() as server:
        database = server.database()
        user = "postgresql+psycopg://streamlake@"
        warehouse = f"file://{directory / 'warehouse'}"
        properties = {"uri": server.url(database).replace("postgresql://streamlake@", user), "warehouse": warehouse}

        @contextmanager
        def faulty() -> Iterator[tuple[Catalog, CatalogFaults]]:
            with TcpFaults(lambda: unix_socket(server.socket), PostgresWire) as faults:
                uri = f"{user}127.0.0.1:{faults.port}/{database}?sslmode=disable&gssencmode=disable"
                yield connect("sql", {**properties, "uri": uri}), faults

        yield RunningCatalog("sql", properties, faulty)


def unix_socket(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    return connection


def over_http(
    kind: str, properties: Mapping[str, Any], key: str, proxy: Callable[[str], HttpCatalogFaults]
) -> RunningCatalog:
    """`key`: the property that holds the server's address."""

    @contextmanager
    def faulty() -> Iterator[tuple[Catalog, CatalogFaults]]:
        with proxy(properties[key]) as faults:
            yield connect(kind, {**properties, key: faults.endpoint + urlsplit(properties[key]).path}), faults

    return RunningCatalog(kind, properties, faulty)


@contextmanager
def seaweedfs(
    directory: Path, kind: str, warehouse: str, access: Callable[[SeaweedFS], dict[str, str]]
) -> Iterator[RunningCatalog]:
    with SeaweedFS(directory) as server:
        properties = {
            "uri": server.iceberg_rest_uri,
            "warehouse": warehouse,
            "s3.endpoint": server.s3_endpoint,
            "s3.access-key-id": server.access_key,
            "s3.secret-access-key": server.secret_key,
            "s3.region": server.region,
            **access(server),
        }
        running = over_http(kind, properties, "uri", RestFaults)
        wait_until(lambda: answers(running))  # the table bucket comes a moment after the server
        yield running


def answers(running: RunningCatalog) -> bool:
    try:
        running.connect().list_namespaces()
    except Exception:
        time.sleep(0.05)
        return False
    return True


def seaweedfs_rest(directory: Path) -> AbstractContextManager[RunningCatalog]:
    def oauth2(server: SeaweedFS) -> dict[str, str]:
        return {
            "oauth2-server-uri": f"{server.iceberg_rest_uri}/v1/oauth/tokens",
            "credential": f"{server.access_key}:{server.secret_key}",
        }

    return seaweedfs(directory, "rest", SeaweedFS.warehouse, oauth2)


def seaweedfs_s3tables(directory: Path) -> AbstractContextManager[RunningCatalog]:
    def sigv4(server: SeaweedFS) -> dict[str, str]:
        return {
            "client.access-key-id": server.access_key,
            "client.secret-access-key": server.secret_key,
        }

    arn = f"arn:aws:s3tables:{SeaweedFS.region}:000000000000:bucket/{SeaweedFS.warehouse}"
    return seaweedfs(directory, "s3tables", arn, sigv4)


@contextmanager
def glue(directory: Path) -> Iterator[RunningCatalog]:
    with StrictGlue() as server:
        properties = {
            "glue.endpoint": server.endpoint,
            "glue.region": "us-east-1",
            "glue.access-key-id": "streamlake",
            "glue.secret-access-key": "streamlake-secret",
            "warehouse": f"file://{directory / 'warehouse'}",
        }
        yield over_http("glue", properties, "glue.endpoint", GlueFaults)


@contextmanager
def reference_rest(directory: Path) -> Iterator[RunningCatalog]:
    with IcebergRest(directory) as server:
        properties = {"uri": server.uri, "warehouse": server.warehouse}
        yield over_http("rest", properties, "uri", RestFaults)


@contextmanager
def nessie(directory: Path) -> Iterator[RunningCatalog]:
    with SeaweedFS(directory / "s3") as s3, Nessie(directory, s3) as server:
        properties = {
            "uri": server.uri,
            "warehouse": server.warehouse,
            "s3.endpoint": s3.s3_endpoint,
            "s3.access-key-id": s3.access_key,
            "s3.secret-access-key": s3.secret_key,
            "s3.region": s3.region,
        }
        yield over_http("rest", properties, "uri", RestFaults)


@contextmanager
def hive(directory: Path) -> Iterator[RunningCatalog]:
    with HiveMetastore(directory) as server:
        properties = {
            "uri": server.uri,
            "warehouse": server.warehouse,
            "hive.hive2-compatible": "true",
            # Who waits for a lock asks often, and so is not taken for dead (hive_metastore.LOCK_TIMEOUT_S).
            "lock-check-max-wait-time": "0.5",
            "lock-check-retries": "60",
        }

        @contextmanager
        def faulty() -> Iterator[tuple[Catalog, CatalogFaults]]:
            def open_connection() -> socket.socket:
                return socket.create_connection(("127.0.0.1", server.port))

            with TcpFaults(open_connection, HiveWire) as faults:
                yield connect("hive", {**properties, "uri": f"thrift://127.0.0.1:{faults.port}"}), faults

        yield RunningCatalog("hive", properties, faulty)


# -- the list ---------------------------------------------------------------------------------------------------------

HTTP_FAULTS = (*RESET_FAULTS, *STATUS_FAULTS)
REST_SENDS_AGAIN = frozenset({"401", "applied_401"})
OF_SEAWEEDFS = dict.fromkeys(("upper case", "dot", "first an underscore", "not ASCII"), REFUSED)
OF_HIVE = {
    "upper case": FOLDED,
    **dict.fromkeys(("dot", "dash", "not ASCII"), REFUSED),
    **dict.fromkeys(("140 characters", "249 characters"), CREATED_ONLY),
}

KINDS = (
    CatalogKind("SQLite", sqlite, ERROR_FAULTS),
    CatalogKind("PostgreSQL", postgres, RESET_FAULTS),
    CatalogKind(
        "REST (SeaweedFS)",
        seaweedfs_rest,
        HTTP_FAULTS,
        names=OF_SEAWEEDFS,
        create_of_existing_is_refused=False,
        commit_to_dropped=RESTError,
        sent_again=REST_SENDS_AGAIN,
    ),
    CatalogKind(
        "S3 Tables (SeaweedFS)",
        seaweedfs_s3tables,
        HTTP_FAULTS,
        names=OF_SEAWEEDFS,
        create_of_existing_is_refused=False,
        commit_to_dropped=RESTError,
        sent_again=REST_SENDS_AGAIN,
    ),
    CatalogKind(
        "Glue (strict moto)",
        glue,
        HTTP_FAULTS,
        names={"upper case": FOLDED},
        nested_namespaces=False,
        long_types=False,
    ),
    CatalogKind(
        "REST (reference)",
        reference_rest,
        HTTP_FAULTS,
        slow=True,
        commit_to_dropped=RESTError,
        sent_again=REST_SENDS_AGAIN,
    ),
    CatalogKind(
        "REST (Nessie)",
        nessie,
        HTTP_FAULTS,
        slow=True,
        keeps_tags=False,
        keeps_history=False,
        lets_remove=False,
        fences_first_commit=False,  # until Nessie 0.101.1
        append_overtaken=(
            CommitFailedException,
            ValidationException,
        ),  # which looks for what came between in the history
        commit_to_dropped=RESTError,
        sent_again=REST_SENDS_AGAIN,
    ),
    CatalogKind(
        "Hive 2.3",
        hive,
        (*RESET_FAULTS, *ERROR_FAULTS),
        slow=True,
        names=OF_HIVE,
        nested_namespaces=False,
        long_types=False,
    ),
)

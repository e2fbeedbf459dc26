"""Configuration: defaults, then a TOML file, then STREAMLAKE_* variables; checked once, with errors that name the key.

`streamlake server` needs none of it. Each package receives its own settings from here and never reads a file or a
variable itself. Kafka's own broker keys (`num.partitions`, `log.retention.ms`, …) go into the `[kafka]` table as they
are written in Kafka's server.properties.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from streamlake.catalogs import automq
from streamlake.catalogs.kinds import AWS, BOTO3
from streamlake.catalogs.named import SQL_CATALOG, NamedCatalogs, configured
from streamlake.coordinator.settings import GroupSettings, TransactionSettings
from streamlake.core.errors import Invalid
from streamlake.core.version import install_hint
from streamlake.s3stream.settings import StreamsSettings
from streamlake.s3stream.wal import uri as wal_uri
from streamlake.s3stream.wal.file.settings import FileWalSettings
from streamlake.s3stream.wal.object.settings import ObjectWalSettings
from streamlake.s3stream.wal.port import CAPACITY_BYTES

ENV_PREFIX = "STREAMLAKE_"
CLIENT_VARIABLES = ("STREAMLAKE_BOOTSTRAP", "STREAMLAKE_HTTP", "STREAMLAKE_TOKEN")  # of commands that talk to a server
AUTOMQ_REGISTRY_URL = "automq.table.topic.schema.registry.url"
FILE_ONLY = ("kafka", "catalogs")  # sections whose keys have no variables
MIB = 1024 * 1024
AUTO = "auto"
NODE_ID_MAX = (1 << 31) - 1  # Kafka's brokers have an int32
# A key that a room has too has its default from there.
STREAMS, FILE_WAL, OBJECT_WAL = StreamsSettings(), FileWalSettings(), ObjectWalSettings()
GROUPS, TRANSACTIONS = GroupSettings(), TransactionSettings()


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(Section):
    """Who this broker is and where clients reach it."""

    node_id: int | Literal["auto"] = 0
    host: str = "127.0.0.1"
    port: int = Field(default=9092, ge=0, le=65535)
    advertised_host: str | None = None  # what clients are told; by default host
    advertised_port: int | None = Field(default=None, ge=1, le=65535)
    http_host: str | None = None  # by default host
    http_port: int = Field(default=8081, ge=0, le=65535)
    connections_max: int = Field(default=10_000, ge=1)
    request_bytes_max: int = Field(default=100 * MIB, ge=1024)
    drain_timeout_s: float = Field(default=30.0, ge=0)
    shutdown_timeout_s: float = Field(default=30.0, gt=0)

    @field_validator("node_id", mode="before")
    @classmethod
    def _number_or_auto(cls, value: Any) -> int | str:
        if value == AUTO:
            return AUTO
        text = str(value)
        if isinstance(value, bool) or not (text.isascii() and text.isdigit()) or int(text) > NODE_ID_MAX:
            raise ValueError(f"must be a number from 0 to {NODE_ID_MAX}, or auto")
        return int(text)


class Storage(Section):
    """Where bytes live. `url` is a directory (file:///…) or a bucket (s3://bucket/prefix)."""

    data_dir: Path = Path("streamlake-data")
    url: str | None = None  # by default <data_dir>/objects
    metadata_url: str | None = None  # by default SQLite in data_dir; postgresql://… keeps no state on this machine
    wal: str | None = None  # s3stream/wal/uri.py; by default `file`, with a metadata server `object`
    wal_capacity_bytes: int = Field(default=CAPACITY_BYTES, ge=1 * MIB)
    wal_segment_bytes: int = Field(default=FILE_WAL.segment_bytes, ge=64 * 1024)  # of a file WAL
    wal_object_bytes: int = Field(default=OBJECT_WAL.object_bytes, ge=64 * 1024)  # of an object WAL
    # Of an object WAL: one object is written a linger, or as soon as it is full.
    wal_linger_ms: int = Field(default=OBJECT_WAL.linger_ms, ge=0, le=10_000)
    # Of an object WAL: records that are appended and not yet acknowledged.
    wal_unflushed_bytes: int = Field(default=OBJECT_WAL.unflushed_bytes_max, ge=1 * MIB)
    upload_bytes: int = Field(default=STREAMS.upload_bytes, ge=1024)
    upload_interval_s: float = Field(default=STREAMS.upload_interval_ms / 1000, gt=0)
    retention_interval_s: float = Field(default=30.0, gt=0)
    gc_interval_s: float = Field(default=STREAMS.gc_interval_ms / 1000, gt=0)
    gc_grace_s: float = Field(default=STREAMS.gc_grace_ms / 1000, ge=0)
    compaction_interval_s: float = Field(default=STREAMS.compaction_interval_ms / 1000, gt=0)
    compaction_bytes_per_s: int = Field(default=STREAMS.compaction_bytes_per_s, ge=0)  # 0: no compaction

    @field_validator("wal_segment_bytes")
    @classmethod
    def _three_fit(cls, value: int, info: Any) -> int:
        if info.data.get("wal_capacity_bytes", 3 * value) < 3 * value:
            raise ValueError("wal_capacity_bytes must hold at least three segments")
        return value


class S3(Section):
    """How a bucket is reached. What is empty comes from the environment, as other S3 clients take it (AWS_*)."""

    endpoint: str = ""
    region: str = ""
    access_key: str = Field(default="", repr=False)
    secret_key: str = Field(default="", repr=False)
    allow_http: bool = False
    path_style: bool = True


class Memory(Section):
    """One budget; `log_cache` and `block_cache` are the parts that caches may fill. Connections have what is left."""

    total_bytes: int = Field(default=1024 * MIB, ge=32 * MIB)
    log_cache_bytes: int = Field(default=STREAMS.log_cache_bytes, ge=1 * MIB)
    block_cache_bytes: int = Field(default=STREAMS.block_cache_bytes, ge=1 * MIB)


class Groups(Section):
    initial_rebalance_delay_ms: int = Field(default=GROUPS.initial_rebalance_delay_ms, ge=0, le=60_000)
    session_timeout_min_ms: int = Field(default=GROUPS.session_timeout_min_ms, ge=1)
    session_timeout_max_ms: int = Field(default=GROUPS.session_timeout_max_ms, ge=1)
    consumer_session_timeout_ms: int = Field(default=GROUPS.consumer_session_timeout_ms, ge=1)
    consumer_heartbeat_interval_ms: int = Field(default=GROUPS.consumer_heartbeat_interval_ms, ge=1)
    group_size_max: int = Field(default=GROUPS.group_size_max, ge=1)
    offsets_retention_ms: int = Field(default=GROUPS.offsets_retention_ms, ge=1)


class Transactions(Section):
    timeout_max_ms: int = Field(default=TRANSACTIONS.timeout_max_ms, ge=1)
    id_expiration_ms: int = Field(default=TRANSACTIONS.id_expiration_ms, ge=1)


class Tables(Section):
    """The table worker and the Iceberg catalog it writes to."""

    enabled: bool = True
    catalog: str = SQL_CATALOG  # the default: a name in [catalogs], or the path of a file like catalogs/rest.toml
    warehouse: str | None = None  # of the catalog `sql`; by default file://<data_dir>/warehouse
    memory_bytes: int = Field(default=256 * MIB, ge=16 * MIB)  # of fetched data, all tables together
    round_bytes: int = Field(default=32 * MIB, ge=1 * MIB)  # commit early when a table has so much pending


class Registry(Section):
    """The schema registry that tables ask; by default the server's own."""

    url: str = Field(default="", pattern=r"^(https?://[^@\s]+)?$")  # of another one
    username: str = Field(default="", pattern=r"^[^:]*$")  # a colon would end it
    password: str = Field(default="", repr=False)
    token: str = Field(default="", repr=False)  # a bearer token, instead of a name and a password
    ca_file: str = ""  # PEM; by default what the system trusts
    certificate_file: str = ""  # PEM, of this client, with its key unless key_file has that
    key_file: str = ""


TOKEN_CHARS_MIN = 16
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # RFC 6750


class Http(Section):
    """What the HTTP port offers beside the schema registry, and to whom."""

    iceberg: bool = True  # the Iceberg REST catalog at /iceberg
    # What clients that ask for credentials of the warehouse get: keys by STS for one table, or the server's own.
    vend_credentials: Literal["no", "short-lived", "long-lived"] = "no"
    sts_role: str = Field(default="", pattern=r"^(arn:.{16,2000})?$")  # whose rights short-lived keys have a part of
    sts_endpoint: str = Field(default="", pattern=r"^(https?://.+)?$")  # by default AWS, in the region of the warehouse
    sign_requests: bool = False  # sign requests to the warehouse for clients that have no key
    tokens: tuple[str, ...] = Field(default=(), repr=False)  # bearer tokens that the Iceberg REST catalog accepts

    @field_validator("tokens", mode="before")
    @classmethod
    def _of_a_variable(cls, value: Any) -> Any:
        """A variable holds them separated by commas."""
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("tokens")
    @classmethod
    def _can_be_sent(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(len(token) < TOKEN_CHARS_MIN or not _TOKEN.fullmatch(token) for token in value):
            raise ValueError(f"a token has at least {TOKEN_CHARS_MIN} letters, digits and any of - . _ ~ + / =")
        return value

    @model_validator(mode="after")
    def _has_a_role(self) -> "Http":
        if self.vend_credentials == "short-lived" and not self.sts_role:
            raise ValueError("vend_credentials = short-lived needs sts_role, the ARN of the role that clients get")
        return self


class Logging(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"


class Config(Section):
    server: Server = Server()
    storage: Storage = Storage()
    s3: S3 = S3()
    memory: Memory = Memory()
    groups: Groups = Groups()
    transactions: Transactions = Transactions()
    tables: Tables = Tables()
    registry: Registry = Registry()
    http: Http = Http()
    logging: Logging = Logging()
    catalogs: dict[str, Any] = Field(default_factory=dict, repr=False)  # by name, checked by catalogs/named.py
    kafka: dict[str, str] = Field(default_factory=dict)  # Kafka's broker keys, checked by cluster/broker_configs.py

    @field_validator("kafka", mode="before")
    @classmethod
    def _as_kafka_writes_them(cls, value: Any) -> Any:
        """Kafka's values are strings; in TOML numbers and booleans read better. Dotted keys nest in TOML: undo it."""
        if not isinstance(value, Mapping):
            return value
        return dict(_flatten(value))


def load(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, Mapping[str, Any]]) -> Config:
    """Defaults < file < environment < command line. Raises Invalid that names the key and what it may be."""
    values: dict[str, Any] = {}
    if path is not None:
        values = _read(path)
    for section, key, value in _environment(environ):
        _section(values, section)[key] = value
    for section, items in overrides.items():
        for key, value in items.items():
            if value is not None:
                _section(values, section)[key] = value
    try:
        _take_automq_catalog(values)
        _take_automq_registry(values)
        return Config.model_validate(values)
    except RecursionError:
        raise Invalid(f"the configuration in {path} is nested too deeply") from None
    except ValidationError as error:
        raise Invalid(_explain(error, path)) from None


def check(config: Config, environ: Mapping[str, str]) -> None:
    """What `load` does not look at: the WAL, Kafka's keys, the catalogs. Invalid, before anything is started."""
    if config.tables.enabled:
        named_catalogs(config, environ)
        _check_registry(config.registry)
        _check_boto3(config.http)
    if config.storage.wal is not None:
        try:
            wal_uri.parse(config.storage.wal, str(config.storage.data_dir.absolute()), config.storage.url or "file:///")
        except Invalid as error:
            raise Invalid(f"storage.wal: {error}") from None
    if config.server.node_id == AUTO:
        _check_auto(config.storage)
    if config.kafka:
        from streamlake.cluster.broker_configs import check_static  # imports the metadata store, which takes a while

        try:
            check_static(config.kafka)
        except Invalid as error:
            raise Invalid(f"[kafka] in the configuration: {error}") from None


def _check_registry(registry: Registry) -> None:
    given = [key for key in Registry.model_fields if key != "url" and getattr(registry, key)]
    if given and not registry.url:
        raise Invalid(f"registry.{given[0]} is for a registry elsewhere: set registry.url, or leave it out")
    if registry.token and (registry.username or registry.password):
        raise Invalid("registry.token and registry.username or registry.password are both given: remove one of them")
    if registry.password and not registry.username:
        raise Invalid("registry.password needs registry.username")
    if registry.key_file and not registry.certificate_file:
        raise Invalid("registry.key_file needs registry.certificate_file")
    for key in ("ca_file", "certificate_file", "key_file"):
        path = getattr(registry, key)
        if path and not Path(path).is_file():
            raise Invalid(f"registry.{key} = {path} does not exist: give the path of a PEM file")


def _check_auto(storage: Storage) -> None:
    """A node id of the cluster's choice may be another one at the next start: nothing here may belong to it."""
    if storage.metadata_url is None:
        raise Invalid(
            "server.node_id = auto is for several brokers, which share storage.metadata_url: set that, or a number"
        )
    if storage.wal is not None and wal_uri.parse(storage.wal, "/", "file:///").continues:
        raise Invalid(
            "server.node_id = auto needs a write-ahead log that others can take over, and storage.wal ="
            f" {storage.wal} is on a disk of this machine: set storage.wal = object, or a number as node_id"
        )


def _check_boto3(http: Http) -> None:
    if (http.vend_credentials == "short-lived" or http.sign_requests) and find_spec(BOTO3) is None:
        key = "sign_requests" if http.sign_requests else "vend_credentials"
        raise Invalid(f"http.{key} needs the package {BOTO3}, which is not installed: {install_hint(AWS)}")


def named_catalogs(config: Config, environ: Mapping[str, str]) -> NamedCatalogs:
    """The catalogs that this configuration has, besides the one beside the metadata. Invalid."""
    return configured(config.catalogs, config.tables.catalog, environ)


def _take_automq_catalog(values: dict[str, Any]) -> None:
    """AutoMQ configures its one catalog among Kafka's broker keys: it becomes one of ours, and the default."""
    kafka = values.get("kafka")
    if not isinstance(kafka, Mapping):
        return
    flat = dict(_flatten(kafka))
    found, rest = automq.catalog(flat)
    if found is None:
        return
    values["kafka"] = rest
    if automq.NAME in _section(values, "catalogs"):
        raise Invalid(f"[catalogs.{automq.NAME}] and {automq.PREFIX}* are both given: remove one of them")
    _section(values, "catalogs")[automq.NAME] = found
    _section(values, "tables").setdefault("catalog", automq.NAME)


def _take_automq_registry(values: dict[str, Any]) -> None:
    """AutoMQ has the address of its registry among Kafka's broker keys."""
    kafka = values.get("kafka")
    if not isinstance(kafka, Mapping):
        return
    flat = dict(_flatten(kafka))
    url = flat.pop(AUTOMQ_REGISTRY_URL, None)
    if url is None:
        return
    values["kafka"] = flat
    if _section(values, "registry").setdefault("url", url) != url:
        raise Invalid(f"registry.url and {AUTOMQ_REGISTRY_URL} are both given: remove one of them")


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    section = values.setdefault(name, {})
    if not isinstance(section, dict):
        raise Invalid(f"{name} in the configuration file is a {type(section).__name__}: it must be a table, [{name}]")
    return section


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise Invalid(f"{path} does not exist: give --config the path of a TOML file, or leave it out") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} cannot be read: {error}") from None
    except RecursionError:
        raise Invalid(f"{path} is not valid TOML: it is nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and what Python says of numbers of thousands of digits
        raise Invalid(f"{path} is not valid TOML: {error}") from None


def _environment(environ: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """STREAMLAKE_SERVER_PORT=9093 is [server] port = 9093; unknown sections are an error, not a silent typo."""
    found = []
    for name, value in sorted(environ.items()):
        if not name.startswith(ENV_PREFIX) or name in CLIENT_VARIABLES:
            continue
        section, _, key = name.removeprefix(ENV_PREFIX).lower().partition("_")
        if section not in Config.model_fields or section in FILE_ONLY or not key:
            known = ", ".join(sorted(s for s in Config.model_fields if s not in FILE_ONLY))
            raise Invalid(f"{name} is not a setting: it must be {ENV_PREFIX}<SECTION>_<KEY>, sections are {known}")
        found.append((section, key, value))
    return found


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    flat = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat += _flatten(value, f"{prefix}{key}.")
        else:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            flat.append((prefix + key, text))
    return flat


def _explain(error: ValidationError, path: Path | None) -> str:
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        hint = ""
        if problem["type"] == "extra_forbidden":
            section = problem["loc"][0] if len(problem["loc"]) > 1 else None
            model = Config.model_fields[str(section)].annotation if section else Config
            known = sorted(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []
            hint = f"; known here: {', '.join(known)}"
        lines.append(f"{where}: {problem['msg'][0].lower()}{problem['msg'][1:]}{hint}")
    source = str(path) if path else "the environment or the command line"
    return f"the configuration from {source} is not valid: " + "; ".join(lines)


def environment() -> Mapping[str, str]:
    return os.environ

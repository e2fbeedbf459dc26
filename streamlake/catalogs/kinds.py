"""THE list of catalogs by kind. To add one, write its module with a `load`, and name it in KINDS.

Importing this is light; loading a catalog imports pyiceberg, which the server process must not.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from streamlake.catalogs.capabilities import Capabilities
from streamlake.core.disk import Disk, RealDisk
from streamlake.core.errors import Invalid
from streamlake.core.version import install_hint

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from streamlake.catalogs.config import CatalogConfig

ANY = re.compile(".*")  # of a REST catalog it is what the server makes of it
LOCATION = re.compile(r"(?![a-z0-9]+://).*|(file|s3|s3a|s3n|gs|gcs|abfs|abfss|wasb|wasbs|hdfs|viewfs|oss|hf)://.*")
TABLE_BUCKET = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):s3tables:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):bucket/(?P<bucket>[^/]+)"
    r"(?:/.*)?"
)
BOTO3, AWS = "boto3", "glue"  # the extra of this distribution that brings boto3
SIGV4 = "rest.sigv4-enabled"


@dataclass(frozen=True, slots=True)
class Kind:
    """`module`: its function `load(config, disk)` returns a pyiceberg catalog. `required`: property keys. `schemes`:
    how its uri may begin, with an example. `needs`: a package, and the extra of this distribution that brings it.
    `warehouse`: what it may be, with an example."""

    module: str
    capabilities: Capabilities
    required: tuple[str, ...] = ("uri",)
    schemes: tuple[str, ...] = ("http", "https")
    example: str = "https://catalog.example.com"
    needs: tuple[str, str] | None = None
    warehouse: re.Pattern[str] = ANY
    warehouse_example: str = ""


# Java's Iceberg refuses other names in Glue and Hive, so Spark and Trino could not read such a table.
_HIVE_NAME = "[a-z0-9_]"

KINDS: Mapping[str, Kind] = {
    "sql": Kind(
        "streamlake.catalogs.sql",
        Capabilities(multi_table_commit=True),
        required=("uri", "warehouse"),
        schemes=("sqlite", "postgresql", "postgresql+psycopg"),
        example="sqlite:////var/lib/streamlake/catalog.db",
        warehouse=LOCATION,
        warehouse_example="s3://bucket/warehouse",
    ),
    "rest": Kind("streamlake.catalogs.rest", Capabilities(create_is_conditional=False)),
    "glue": Kind(
        "streamlake.catalogs.glue",
        Capabilities(
            name_chars=_HIVE_NAME,
            first_char=_HIVE_NAME,
            folds_case=True,
            nested_namespaces=False,
            type_chars_max=131_072,  # of a column in the Glue API
        ),
        required=("warehouse",),
        needs=(BOTO3, AWS),
        warehouse=LOCATION,
        warehouse_example="s3://bucket/warehouse",
    ),
    "hive": Kind(
        "streamlake.catalogs.hive",
        Capabilities(
            name_chars=_HIVE_NAME,
            first_char=_HIVE_NAME,
            name_chars_max=128,  # of the names in its table of locks: each commit takes one
            folds_case=True,
            nested_namespaces=False,
        ),
        schemes=("thrift",),
        example="thrift://metastore.example.com:9083",
        needs=("thrift", "hive"),
        warehouse=LOCATION,
        warehouse_example="s3://bucket/warehouse",
    ),
    "s3tables": Kind(
        "streamlake.catalogs.s3tables",
        Capabilities(
            name_chars="[a-z0-9_]", first_char="[a-z0-9]", nested_namespaces=False, create_is_conditional=False
        ),
        required=("warehouse",),
        needs=(BOTO3, AWS),
        warehouse=TABLE_BUCKET,
        warehouse_example="arn:aws:s3tables:us-east-1:111122223333:bucket/NAME",
    ),
}


def capabilities_of(kind: str, catalog: "Catalog") -> Capabilities:
    """What this catalog can hold and keep: what its kind can, and what it says of itself."""
    known = KINDS[kind].capabilities
    refined = getattr(import_module(KINDS[kind].module), "refined", None)
    return known if refined is None else cast(Capabilities, refined(known, catalog))


def check_installed(kind: str, properties: Mapping[str, Any]) -> None:
    """Invalid names the extra that is missing for a catalog with these properties."""
    needs = KINDS[kind].needs
    what = f"kind {kind}"
    if needs is None and str(properties.get(SIGV4, "")).lower() in ("true", "1", "yes", "on", "t", "y"):
        needs, what = (BOTO3, AWS), SIGV4
    if needs is not None and find_spec(needs[0]) is None:
        raise Invalid(f"{what} needs the package {needs[0]}, which is not installed: {install_hint(needs[1])}")


def load(config: "CatalogConfig", disk: Disk | None = None) -> "Catalog":
    """The pyiceberg catalog of `config`; blocks on the network or disk. Raises Invalid for what can never work.

    `disk` holds the SQLite file and a local warehouse; other warehouses do not use it."""
    check_installed(config.kind, config.properties)
    catalog: Catalog = import_module(KINDS[config.kind].module).load(config, disk or RealDisk())
    return catalog

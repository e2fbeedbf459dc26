"""Tables in the REST catalog of SeaweedFS: the server's configuration, in the shape of catalogs/rest.toml, and a reader."""

from pathlib import Path

from pyiceberg.catalog import Catalog, load_catalog
from support.seaweedfs import SeaweedFS

CATALOG = """
kind = "rest"
name = "lake"

[properties]
{properties}
"""


def properties(lakehouse: SeaweedFS) -> dict[str, str]:
    return {
        "uri": lakehouse.iceberg_rest_uri,
        "warehouse": lakehouse.warehouse,
        "oauth2-server-uri": f"{lakehouse.iceberg_rest_uri}/v1/oauth/tokens",
        "credential": f"{lakehouse.access_key}:{lakehouse.secret_key}",
        "s3.endpoint": lakehouse.s3_endpoint,
        "s3.access-key-id": lakehouse.access_key,
        "s3.secret-access-key": lakehouse.secret_key,
        "s3.region": lakehouse.region,
    }


def server_config(lakehouse: SeaweedFS, folder: Path) -> str:
    """Writes the catalog file; secrets come from the environment, see `environ`."""
    shown = properties(lakehouse) | {
        "credential": "${LAKE_KEY}:${LAKE_SECRET}",
        "s3.access-key-id": "${LAKE_KEY}",
        "s3.secret-access-key": "${LAKE_SECRET}",
    }
    file = folder / "lake.toml"
    file.write_text(CATALOG.format(properties="\n".join(f'"{key}" = "{value}"' for key, value in shown.items())))
    return f'[tables]\ncatalog = "{file}"\n'


def environ(lakehouse: SeaweedFS) -> dict[str, str]:
    return {"LAKE_KEY": lakehouse.access_key, "LAKE_SECRET": lakehouse.secret_key}


def catalog(lakehouse: SeaweedFS) -> Catalog:
    return load_catalog("lake", **{"type": "rest", **properties(lakehouse)})

"""The catalogs of this server: those of its configuration, and the one beside its metadata."""

from collections.abc import Mapping

from streamlake.broker.machine import metadata_url
from streamlake.catalogs import config as catalog_config
from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.named import SQL_CATALOG, NamedCatalogs
from streamlake.config import Config, named_catalogs


def catalogs_of(config: Config, environ: Mapping[str, str]) -> NamedCatalogs:
    """Invalid names the file and the key."""
    beside = {SQL_CATALOG: _beside_metadata(config)}
    if not config.tables.enabled:
        return NamedCatalogs(SQL_CATALOG, beside)
    configured = named_catalogs(config, environ)
    return NamedCatalogs(configured.default, {**beside, **configured.by_name})


def _beside_metadata(config: Config) -> CatalogConfig:
    tables, storage = config.tables, config.storage
    data_dir, url = storage.data_dir.absolute(), metadata_url(config)
    if url.startswith("sqlite"):
        return catalog_config.embedded(data_dir, tables.warehouse)
    warehouse = tables.warehouse or (f"{storage.url}/warehouse" if storage.url else None)
    return catalog_config.beside_metadata(url, data_dir, warehouse, config.s3.model_dump())

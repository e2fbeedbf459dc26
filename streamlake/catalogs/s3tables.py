"""Amazon S3 Tables: a table bucket, named by its ARN, as an Iceberg REST catalog whose requests are signed (SigV4).

Two services answer for a table bucket. Its own endpoint is the default; with `uri = "https://glue.REGION.…/iceberg"`
it is AWS Glue's, which governs access by Lake Formation and calls the bucket `ACCOUNT:s3tablescatalog/BUCKET`. What
follows from the ARN is filled in here; each property that is given is kept.
"""

import re
from typing import Any

from pyiceberg.catalog.rest import SIGV4, SIGV4_REGION, SIGV4_SERVICE, RestCatalog
from pyiceberg.io import AWS_REGION, S3_REGION

from streamlake.catalogs import rest
from streamlake.catalogs.capabilities import Capabilities
from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.kinds import TABLE_BUCKET
from streamlake.core.disk import Disk
from streamlake.core.errors import Invalid

_DOMAINS = {"aws-cn": "amazonaws.com.cn"}
_GLUE = re.compile(r"https://glue[.-]")


def load(config: CatalogConfig, disk: Disk) -> RestCatalog:
    """As rest.load. Raises Invalid if the warehouse is not the ARN of a table bucket."""
    return rest.load(CatalogConfig(config.kind, config.name, derived(config), config.where), disk)


def refined(known: Capabilities, catalog: RestCatalog) -> Capabilities:
    return rest.refined(known, catalog)


def derived(config: CatalogConfig) -> dict[str, Any]:
    """The properties of the REST catalog that the ARN stands for. Invalid."""
    found = TABLE_BUCKET.fullmatch(str(config.properties["warehouse"]))
    if found is None:
        raise Invalid(f"{config.where}: warehouse is not the ARN of a table bucket")
    region, domain = found["region"], _DOMAINS.get(found["partition"], "amazonaws.com")
    properties = dict(config.properties)
    properties.setdefault("uri", f"https://s3tables.{region}.{domain}/iceberg")
    through_glue = _GLUE.match(properties["uri"]) is not None
    if through_glue:
        properties["warehouse"] = f"{found['account']}:s3tablescatalog/{found['bucket']}"
    properties.setdefault(SIGV4, "true")
    properties.setdefault(SIGV4_SERVICE, "glue" if through_glue else "s3tables")
    for key in (SIGV4_REGION, AWS_REGION, S3_REGION):
        properties.setdefault(key, region)
    return properties

"""AWS Glue: pyiceberg's, without retries of its own.

A commit that boto3 retries may conflict with its own first attempt, which landed. Whether a commit is sent again is
the committer's choice.
"""

from pyiceberg.catalog.glue import GLUE_MAX_RETRIES, GlueCatalog

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.files import file_io
from streamlake.core.disk import Disk
from streamlake.core.errors import Invalid


def load(config: CatalogConfig, disk: Disk) -> GlueCatalog:
    """Makes a client, and asks nobody yet. Raises Invalid, and what boto3 raises: without a region, for one."""
    properties = dict(config.properties)
    try:
        properties[GLUE_MAX_RETRIES] = int(properties.get(GLUE_MAX_RETRIES, 0))  # pyiceberg would hand boto3 a string
    except ValueError:
        raise Invalid(f"{config.where}: {GLUE_MAX_RETRIES} must be a whole number") from None
    file_io.choose_for(properties, disk)
    return GlueCatalog(config.name, **properties)

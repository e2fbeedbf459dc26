"""What all tables of one catalog share."""

from dataclasses import dataclass

from pyiceberg.catalog import Catalog

from streamlake.catalogs.capabilities import Capabilities
from streamlake.core.clock import Clock
from streamlake.core.ids import Ids
from streamlake.core.tasks import Executor
from streamlake.table.formats.resolve import SchemaCache


@dataclass(frozen=True, slots=True)
class Tools:
    """The catalog with what it can keep, the compiled schemas, and the executor, clock and chance of the tables."""

    catalog: Catalog
    schemas: SchemaCache
    executor: Executor
    clock: Clock
    ids: Ids
    capabilities: Capabilities

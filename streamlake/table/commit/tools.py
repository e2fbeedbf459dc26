"""What all tables of one worker share."""

from dataclasses import dataclass

from pyiceberg.catalog import Catalog

from streamlake.core.clock import Clock
from streamlake.core.ids import Ids
from streamlake.core.tasks import Executor
from streamlake.table.formats.resolve import SchemaCache


@dataclass(frozen=True, slots=True)
class Tools:
    """The catalog, the compiled schemas, and the executor, clock and chance that tables work with."""

    catalog: Catalog
    schemas: SchemaCache
    executor: Executor
    clock: Clock
    ids: Ids

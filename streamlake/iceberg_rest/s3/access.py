"""What a client that asks gets for the files of a table: short-lived keys, signatures, the server's own keys, nothing.

Clients choose where their tables are, so a location alone opens nothing: it must be below the catalog's warehouse and
apart from the server's own log. The keys of the server open more; who may have them is told by the configuration.
"""

import threading
from collections import OrderedDict
from collections.abc import Set
from dataclasses import dataclass, field

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.rest.scan_planning import StorageCredential
from pyiceberg.io import S3_SIGNER, S3_SIGNER_ENDPOINT
from pyiceberg.typedef import Identifier

from streamlake.core.clock import Clock
from streamlake.iceberg_rest import paths
from streamlake.iceberg_rest.problem import Problem
from streamlake.iceberg_rest.s3 import credentials
from streamlake.iceberg_rest.s3.credentials import ShortLived
from streamlake.iceberg_rest.s3.place import Place, place_of
from streamlake.iceberg_rest.s3.signing import Signer
from streamlake.iceberg_rest.s3.store import Store
from streamlake.table.task.control import S3AccessSettings

VENDED, SIGNED = "vended-credentials", "remote-signing"  # what clients may ask for
REFRESH_ENDPOINT = "client.refresh-credentials-endpoint"
KNOWN_MAX = 10_000
LOADED_KNOWN_S = 30  # a table that is dropped, or moves, is signed for no longer
STAGED_KNOWN_S = 3600  # the catalog has none of it until it is committed


@dataclass(frozen=True, slots=True)
class Grant:
    """Properties for the client, and the same as the specification's credentials if they are keys."""

    config: dict[str, str] = field(default_factory=dict)
    credentials: list[StorageCredential] = field(default_factory=list)
    ends: bool = False


class S3Access:
    """To the tables of one catalog, by StreamLake's name for it."""

    def __init__(self, settings: S3AccessSettings, name: str, catalog: Catalog, clock: Clock) -> None:
        self._settings = settings
        self._name = name
        self._catalog = catalog
        self._clock = clock
        self._store = Store(catalog.properties)
        self.signer = Signer(self._store)
        self._short_lived = ShortLived(self._store, settings, clock)
        self._lock = threading.Lock()
        self._known: OrderedDict[Identifier, tuple[str, float]] = OrderedDict()  # location, and until when

    @property
    def vends(self) -> bool:
        return self._settings.vends != "no"

    @property
    def signs(self) -> bool:
        return self._settings.signs

    def grant(self, asked: Set[str], table: Identifier, location: str, staged: bool = False) -> Grant:
        """For a table that the client has loaded or is creating. Raises Problem if short-lived keys cannot be had."""
        if not self.vends and not self.signs:
            return Grant()
        if VENDED in asked and self._settings.vends == "long-lived":
            return self._keys(location, self._store.own_key())
        place, _ = self._opened(location)
        if place is None:
            return Grant()  # the client may have a key of its own
        if VENDED in asked and self._settings.vends == "short-lived" and credentials.can_be_named(place):
            refresh = {REFRESH_ENDPOINT: paths.of_table(self._name, table, "credentials")}
            return self._keys(location, self._short_lived.for_place(place) | refresh, ends=True)
        if SIGNED in asked and self.signs:
            self._remember(table, location, STAGED_KNOWN_S if staged else LOADED_KNOWN_S)
            signer = {S3_SIGNER: "S3V4RestSigner", S3_SIGNER_ENDPOINT: paths.of_table(self._name, table, "sign")}
            return Grant({"s3.remote-signing-enabled": "true", **signer, **self._store.address()})
        return Grant()

    def place(self, table: Identifier) -> Place:
        """Below which requests for this table are signed. Raises Problem, and what the catalog raises."""
        with self._lock:
            location, until = self._known.get(table, ("", 0.0))
        if until <= self._clock.boottime():
            location = self._catalog.load_table(table).metadata.location
            self._remember(table, location, LOADED_KNOWN_S)
        place, why = self._opened(location)
        if place is None:
            raise Problem(403, "ForbiddenException", f"requests for {location} are not signed: {why}")
        return place

    def _opened(self, location: str) -> tuple[Place | None, str]:
        """The place that is opened for a table with this location, or why none is."""
        place = place_of(location)
        if place is None:
            return None, "it is no folder of an S3 bucket"
        warehouse = place_of(str(self._catalog.properties.get("warehouse", "")))
        if warehouse is None or not place.is_below(warehouse):
            return None, "it is not below the warehouse of the catalog"
        for own in filter(None, map(place_of, self._settings.own_urls)):
            # A warehouse below it is apart from the log: that is where a server without a local disk has it.
            if own.is_within(place) or (place.is_within(own) and not warehouse.is_below(own)):
                return None, "the server keeps its log there"
        return place, ""

    def _keys(self, location: str, keys: dict[str, str], ends: bool = False) -> Grant:
        if not keys:
            return Grant()
        config = {**self._store.address(), **keys}
        return Grant(config, [StorageCredential(prefix=location, config=config)], ends)

    def _remember(self, table: Identifier, location: str, for_s: float) -> None:
        with self._lock:
            self._known[table] = location, self._clock.boottime() + for_s
            self._known.move_to_end(table)
            while len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)

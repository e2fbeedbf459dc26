"""The Hive Metastore, versions 2.3 and 3: pyiceberg's catalog, safe for threads and with a time limit on every call.

pyiceberg keeps one connection for all threads: a second call would close the connection of a first one, and a commit
that loses it leaves its lock behind, which blocks the table for minutes. Here each call has a connection of its own.
"""

import contextlib
import threading
from typing import Any
from urllib.parse import urlparse

from hive_metastore.ttypes import NoSuchObjectException
from pyiceberg.catalog.hive import (
    HIVE_KERBEROS_AUTH,
    HIVE_KERBEROS_AUTH_DEFAULT,
    HIVE_KERBEROS_SERVICE_NAME,
    HIVE_KERBEROS_SERVICE_NAME_DEFAULT,
    HiveCatalog,
    _HiveClient,
)
from pyiceberg.exceptions import NamespaceAlreadyExistsError
from pyiceberg.typedef import EMPTY_DICT
from pyiceberg.utils.properties import property_as_bool
from thrift.Thrift import TApplicationException
from thrift.transport import TSocket, TTransport

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.files import file_io
from streamlake.core.disk import Disk
from streamlake.core.errors import Invalid

DEFAULT_PORT = 9083
TIMEOUT_MS = 60_000  # of one read or write; a metastore answers even a call that waits for a lock at once


def load(config: CatalogConfig, disk: Disk) -> HiveCatalog:
    """Connect, and see whether pyiceberg can speak to it. Raises Invalid if not, and what thrift raises."""
    properties = dict(config.properties)
    file_io.choose_for(properties, disk)
    catalog = ThreadSafeHiveCatalog(config.name, **properties)
    _check_version(catalog, config)
    return catalog


def _check_version(catalog: HiveCatalog, config: CatalogConfig) -> None:
    """Version 4 took away the call `get_table`, without which nothing works. pyiceberg would find out only after it
    had created a table."""
    try:
        with catalog._client as metastore:
            metastore.get_table(dbname="default", tbl_name="streamlake_no_such_table")
    except NoSuchObjectException:
        return
    except TApplicationException as error:
        if error.type != TApplicationException.UNKNOWN_METHOD:
            raise
        raise Invalid(
            f"{config.where}: {config.properties['uri']} is a Hive Metastore of version 4, which PyIceberg cannot "
            "speak to yet: use version 2.3 or 3, or its Iceberg REST endpoint (kind rest), if it has one"
        ) from None


class ThreadSafeHiveCatalog(HiveCatalog):
    def __init__(self, name: str, **properties: str) -> None:
        self._creating = threading.Lock()
        super().__init__(name, **properties)

    def create_namespace(self, namespace: Any, properties: Any = EMPTY_DICT) -> None:
        """Of two at once the metastore refuses one, and removes the database's directory then, with the files of the
        tables that the other one has made there by now."""
        with self._creating:
            if self.namespace_exists(namespace):
                raise NamespaceAlreadyExistsError(f"namespace {namespace} exists")
            super().create_namespace(namespace, properties)

    @property
    def _client(self) -> _HiveClient:  # an attribute in pyiceberg, used as `with self._client`
        return self._create_hive_client(self.properties)

    @_client.setter
    def _client(self, _: _HiveClient) -> None:
        """pyiceberg's constructor would keep one."""

    @staticmethod
    def _create_hive_client(properties: dict[str, str]) -> _HiveClient:
        return Connection(
            properties["uri"],
            properties.get("ugi"),
            property_as_bool(properties, HIVE_KERBEROS_AUTH, HIVE_KERBEROS_AUTH_DEFAULT),
            properties.get(HIVE_KERBEROS_SERVICE_NAME, HIVE_KERBEROS_SERVICE_NAME_DEFAULT),
        )


class Connection(_HiveClient):
    """To the first metastore of `uri` (several have commas between them) that can be reached, for one `with`."""

    def __enter__(self) -> Any:
        *others, last = self._uri.split(",")
        for uri in others:
            with contextlib.suppress(TTransport.TTransportException):
                return self._opened(uri)
        return self._opened(last)

    def _opened(self, uri: str) -> Any:
        self._transport = self._transport_to(uri)
        self._transport.open()
        try:
            return self._client()
        except BaseException:
            self._transport.close()
            raise

    def _init_thrift_transport(self) -> Any:
        """In pyiceberg's constructor, and never opened."""
        return self._transport_to(self._uri.partition(",")[0])

    def _transport_to(self, uri: str) -> Any:
        url = urlparse(uri)
        socket = TSocket.TSocket(url.hostname, url.port or DEFAULT_PORT)
        socket.setTimeout(TIMEOUT_MS)
        if self._kerberos_auth:
            return TTransport.TSaslClientTransport(socket, host=url.hostname, service=self._kerberos_service_name)
        return TTransport.TBufferedTransport(socket)

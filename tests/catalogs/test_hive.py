"""Against a metastore of a few lines: PyIceberg's generated Thrift code on a real socket, answering what a test says.

A real Hive Metastore is started by the behaviour suite."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hive_metastore.ThriftHiveMetastore import Processor
from hive_metastore.ttypes import Database, NoSuchObjectException
from support.wait import DEADLINE_S
from thrift.protocol import TBinaryProtocol
from thrift.Thrift import TApplicationException
from thrift.transport import TSocket, TTransport

from streamlake.catalogs import hive
from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.kinds import load
from streamlake.core.errors import Invalid


class Metastore:
    """The calls that a test needs; each connection has a thread."""

    def __init__(self) -> None:
        self.processor = Processor(self)
        self.connections = 0
        self._listener = TSocket.TServerSocket("127.0.0.1", 0)
        self._listener.listen()
        self.port = self._listener.handle.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: Any) -> None:
        protocol = TBinaryProtocol.TBinaryProtocol(TTransport.TBufferedTransport(client))
        try:
            while True:
                self.processor.process(protocol, protocol)
        except (TTransport.TTransportException, OSError):
            client.close()

    def close(self) -> None:
        self._listener.handle.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    # -- calls ---------------------------------------------------------------------------------------------------------

    def get_table(self, dbname: str, tbl_name: str) -> None:
        raise NoSuchObjectException(f"{dbname}.{tbl_name}")

    def get_all_databases(self) -> list[str]:
        return ["default"]

    def get_database(self, name: str) -> Database:
        time.sleep(0.05)
        return Database(name=name, locationUri="file:/lake", parameters={})


@pytest.fixture
def metastore() -> Iterator[Metastore]:
    server = Metastore()
    yield server
    server.close()


def config(uri: str) -> CatalogConfig:
    return CatalogConfig("hive", "lake", {"uri": uri}, "lake.toml")


def uri(server: Metastore) -> str:
    return f"thrift://127.0.0.1:{server.port}"


def test_version_3_is_loaded(metastore: Metastore) -> None:
    assert load(config(uri(metastore))).list_namespaces() == [("default",)]


def test_version_4_is_refused_in_one_line(metastore: Metastore) -> None:
    del metastore.processor._processMap["get_table"]  # as version 4 did
    with pytest.raises(Invalid) as error:
        load(config(uri(metastore)))
    assert str(error.value) == (
        f"lake.toml: {uri(metastore)} is a Hive Metastore of version 4, which PyIceberg cannot speak to yet: use "
        "version 2.3 or 3, or its Iceberg REST endpoint (kind rest), if it has one"
    )


def test_other_troubles_are_not_taken_for_version_4(metastore: Metastore) -> None:
    def broken(dbname: str, tbl_name: str) -> None:
        raise RuntimeError("the database of the metastore is away")

    metastore.get_table = broken  # type: ignore[method-assign]
    with pytest.raises(TApplicationException):
        load(config(uri(metastore)))


def test_threads_do_not_close_each_others_connections(metastore: Metastore) -> None:
    """A commit whose connection another thread closes would leave its lock behind."""
    catalog = load(config(uri(metastore)))
    errors: list[BaseException] = []

    def work(call: Callable[[], object]) -> None:
        try:
            for _ in range(5):
                call()
        except BaseException as error:
            errors.append(error)

    calls = [lambda: catalog.load_namespace_properties("default"), catalog.list_namespaces] * 2
    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert errors == []


def test_the_next_metastore_is_asked_if_one_is_away(metastore: Metastore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    catalog = load(config(f"thrift://127.0.0.1:{free},{uri(metastore)}"))
    assert catalog.list_namespaces() == [("default",)]


def test_a_metastore_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hive, "TIMEOUT_MS", 200)
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(TTransport.TTransportException):
        load(config(f"thrift://127.0.0.1:{deaf.getsockname()[1]}"))

"""Tables: list, load, create (staged too), register, rename, drop, metrics reports. Commits are in commits.py."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, Field
from pyiceberg.catalog import LOCATION, WAREHOUSE_LOCATION, Catalog, MetastoreCatalog
from pyiceberg.catalog.rest import CreateTableRequest, ListTableResponseEntry, ListTablesResponse, TableResponse
from pyiceberg.exceptions import NoSuchTableError, TableAlreadyExistsError
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import Table, TableIdentifier, TableProperties
from pyiceberg.table.metadata import SUPPORTED_TABLE_FORMAT_VERSION, TableMetadata, new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.typedef import Identifier

from streamlake.iceberg_rest import namespaces, table_properties, topic_guard
from streamlake.iceberg_rest.errors import bad_request
from streamlake.iceberg_rest.problem import Problem
from streamlake.iceberg_rest.request import NO_CONTENT, NO_STORE, Reply, Request, page
from streamlake.iceberg_rest.s3.access import Grant
from streamlake.table.commit.expiry import may_remove

SNAPSHOTS_ALL, SNAPSHOTS_REFS = "all", "refs"


class RegisterTableRequest(BaseModel):
    name: str
    metadata_location: str = Field(alias="metadata-location")
    overwrite: bool = False


class RenameTableRequest(BaseModel):
    source: TableIdentifier
    destination: TableIdentifier


def list_tables(catalog: Catalog, request: Request) -> Reply:
    namespaces.require(catalog, request.namespace)
    found, token = page(sorted(catalog.list_tables(request.namespace)), request)
    entries = [ListTableResponseEntry(name=i[-1], namespace=i[:-1]) for i in found]
    return Reply(content=ListTablesResponse(identifiers=entries, **{"next-page-token": token}))


def load(catalog: Catalog, request: Request) -> Reply:
    mode = request.query.get("snapshots", SNAPSHOTS_ALL)
    if mode not in (SNAPSHOTS_ALL, SNAPSHOTS_REFS):
        raise bad_request(f"snapshots is {SNAPSHOTS_ALL} or {SNAPSHOTS_REFS}")
    table = catalog.load_table(request.table)
    grant = request.granted(request.table, table.metadata.location)
    etag = "" if grant.ends else _etag(table.metadata_location, mode)  # keys must not be the ones of an older answer
    if etag and etag in (part.strip().removeprefix("W/") for part in request.etag.split(",")):
        return Reply(304, etag=etag)
    metadata = table.metadata
    if mode == SNAPSHOTS_REFS:
        named = {ref.snapshot_id for ref in metadata.refs.values()}
        metadata = metadata.model_copy(update={"snapshots": [s for s in metadata.snapshots if s.snapshot_id in named]})
    return _reply(grant, metadata, table.metadata_location, etag)


def exists(catalog: Catalog, request: Request) -> Reply:
    if not catalog.table_exists(request.table):
        raise NoSuchTableError(f"Table does not exist: {'.'.join(request.table)}")
    return NO_CONTENT


def create(catalog: Catalog, request: Request) -> Reply:
    body = request.model(CreateTableRequest, **{"location": None, "partition-spec": None, "write-order": None})
    identifier = (*request.namespace, body.name)
    check_name(body.name)
    _check_version(body.properties)
    table_properties.check(body.properties)
    namespaces.require(catalog, request.namespace)
    _require_free(catalog, identifier)
    given: dict[str, Any] = {
        "schema": body.table_schema,
        "location": body.location or _location(catalog, identifier),
        "partition_spec": body.partition_spec or UNPARTITIONED_PARTITION_SPEC,
        "sort_order": body.write_order or UNSORTED_SORT_ORDER,
        "properties": body.properties,
    }
    if not body.stage_create:
        return _loaded(request, identifier, catalog.create_table(identifier, **given))
    staged = _staged(catalog, identifier, given)
    _make_directory(staged.location)
    return _reply(request.granted(identifier, staged.location, staged=True), staged, None)


def register(catalog: Catalog, request: Request) -> Reply:
    body = request.model(RegisterTableRequest)
    identifier = (*request.namespace, body.name)
    check_name(body.name)
    namespaces.require(catalog, request.namespace)
    if body.overwrite:
        topic_guard.check_removal(request, identifier, "overwritten")
    else:
        _require_free(catalog, identifier)
    # Before the catalog names the file: pyiceberg would leave a table behind that nobody can load.
    try:
        metadata = FromInputFile.table_metadata(
            catalog._load_file_io(location=body.metadata_location).new_input(body.metadata_location)
        )
    except Exception:  # what it is instead is not for the client's eyes: any file of this machine may be named here
        raise bad_request(f"{body.metadata_location} cannot be read as the metadata of a table") from None
    table_properties.check(metadata.properties)
    return _loaded(request, identifier, catalog.register_table(identifier, body.metadata_location, body.overwrite))


def rename(catalog: Catalog, request: Request) -> Reply:
    body = request.model(RenameTableRequest)
    source, destination = _identifier(body.source), _identifier(body.destination)
    check_name(destination[-1])
    topic_guard.check_removal(request, source, "renamed")
    namespaces.require(catalog, destination[:-1])
    _require_free(catalog, destination)
    catalog.rename_table(source, destination)
    return NO_CONTENT


def drop(catalog: Catalog, request: Request) -> Reply:
    topic_guard.check_removal(request, request.table, "dropped")
    purge = request.query.get("purgeRequested", "").lower() == "true"
    if purge and may_remove(catalog.load_table(request.table).metadata):
        # The catalog forgets the table first, then its files go: dying in between leaves files and no broken table.
        catalog.purge_table(request.table)
    else:
        catalog.drop_table(request.table)
    return NO_CONTENT


def report_metrics(catalog: Catalog, request: Request) -> Reply:
    """Clients send what a scan or a commit cost them; nobody reads it here."""
    request.json()
    return NO_CONTENT


def _check_version(properties: Mapping[str, str]) -> None:
    """pyiceberg would stage a table of version 3, which nobody can read, and write none."""
    version = properties.get(TableProperties.FORMAT_VERSION, "")
    if version.isdecimal() and int(version) > SUPPORTED_TABLE_FORMAT_VERSION:
        text = (
            f"{TableProperties.FORMAT_VERSION} is {version}: this catalog keeps up to {SUPPORTED_TABLE_FORMAT_VERSION}"
        )
        raise Problem(406, "UnsupportedOperationException", text)


def check_name(name: str) -> None:
    if not name.strip() or name != name.strip():
        raise bad_request("the name of a table must be text without blanks around it")


def _require_free(catalog: Catalog, identifier: Identifier) -> None:
    """A name, in Iceberg's words. The catalog itself refuses one that is taken after this look."""
    if catalog.table_exists(identifier):
        raise TableAlreadyExistsError(f"Table already exists: {'.'.join(identifier)}")


def _loaded(request: Request, identifier: Identifier, table: Table) -> Reply:
    """Of a table that was just created."""
    try:
        grant = request.granted(identifier, table.metadata.location)
    except Problem:  # its status would say that nothing was done; the client may load the table again for keys
        grant = Grant()
    etag = "" if grant.ends else _etag(table.metadata_location, SNAPSHOTS_ALL)
    return _reply(grant, table.metadata, table.metadata_location, etag)


def _reply(grant: Grant, metadata: TableMetadata, location: str | None, etag: str = "") -> Reply:
    response = TableResponse(  # type: ignore[call-arg]
        metadata_location=location, metadata=metadata, config=grant.config, storage_credentials=grant.credentials
    )
    return Reply(content=response, etag=etag, cache=NO_STORE if grant.credentials else "")


def _etag(metadata_location: str, mode: str) -> str:
    """Metadata files never change, so the name of one stands for what it holds."""
    return f'"{hashlib.sha256(f"{mode} {metadata_location}".encode()).hexdigest()[:32]}"'


def _staged(catalog: Catalog, identifier: Identifier, given: dict[str, Any]) -> TableMetadata:
    """The metadata of a table that is created later, by a commit."""
    if not isinstance(catalog, MetastoreCatalog):
        return catalog.create_table_transaction(identifier, **given).table_metadata
    if given["location"] is None:
        given["location"] = catalog._resolve_table_location(None, ".".join(identifier[:-1]), identifier[-1])
    return new_table_metadata(**given)


def _make_directory(location: str) -> None:
    """DuckDB writes the first manifests of a staged table, and makes no directory for them on a local disk."""
    if location.startswith("file:"):
        Path(location.removeprefix("file://"), "metadata").mkdir(parents=True, exist_ok=True)


def _location(catalog: Catalog, identifier: Identifier) -> str | None:
    """Of a new table; None for what the catalog chooses. A slash in a name must not put one table's directory into
    another's: orphan removal of the outer one would delete the files of the inner one."""
    if "/" not in "".join(identifier) or not isinstance(catalog, MetastoreCatalog):
        return None
    namespace, name = ".".join(identifier[:-1]), quote(identifier[-1], safe="")
    home = catalog.load_namespace_properties(namespace).get(LOCATION)
    if not home:
        home = f"{catalog.properties[WAREHOUSE_LOCATION].rstrip('/')}/{quote(namespace, safe='')}"
    return f"{home.rstrip('/')}/{name}"


def _identifier(named: TableIdentifier) -> Identifier:
    levels: Sequence[str] = named.namespace.root
    return (*levels, named.name)

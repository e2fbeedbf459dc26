"""Commits: of one table, and of several at once where the catalog can do that atomically."""

from typing import TypeGuard

from pydantic import BaseModel, Field
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import CommitTableRequest, CommitTableResponse, Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.typedef import Identifier

from streamlake.iceberg_rest import sql_commit, table_properties, tables, topic_guard
from streamlake.iceberg_rest.errors import bad_request
from streamlake.iceberg_rest.problem import Problem
from streamlake.iceberg_rest.request import NO_CONTENT, Reply, Request, table_key
from streamlake.iceberg_rest.sql_commit import Change

TABLES_MAX = 100  # in one transaction


class CommitTransactionRequest(BaseModel):
    table_changes: list[CommitTableRequest] = Field(alias="table-changes", min_length=1, max_length=TABLES_MAX)


def commit_table(catalog: Catalog, request: Request) -> Reply:
    namespace, name = list(request.namespace), request.table[-1]
    named = {"identifier": {"namespace": namespace, "name": name}}  # the path says which table
    change = _change(request, CommitTableRequest.model_validate({**request.json(), **named}))
    if is_atomic(catalog):
        return Reply(content=_commit_sql(catalog, request, [change])[0])
    return Reply(content=_commit_elsewhere(catalog, change))


def commit_transaction(catalog: Catalog, request: Request) -> Reply:
    """Several tables, all or nothing."""
    if not is_atomic(catalog):
        raise Problem(406, "UnsupportedOperationException", "this catalog commits one table at a time")
    changes = [_change(request, one) for one in request.model(CommitTransactionRequest).table_changes]
    if len({table_key(change.identifier) for change in changes}) != len(changes):
        raise bad_request("table-changes must name each table once")
    _commit_sql(catalog, request, changes)
    return NO_CONTENT


def is_atomic(catalog: Catalog) -> TypeGuard[SqlCatalog]:
    """Whether several tables of it can be committed all or nothing."""
    return isinstance(catalog, SqlCatalog)


def _change(request: Request, body: CommitTableRequest) -> Change:
    identifier: Identifier = (*body.identifier.namespace.root, body.identifier.name)
    tables.check_name(body.identifier.name)
    table_properties.check_updates(body.updates)
    request.attempted.add(request.key(identifier))

    def check(metadata: TableMetadata) -> None:
        topic_guard.check_commit(request, identifier, metadata, body.requirements, body.updates)

    return Change(identifier, body.requirements, body.updates, check)


def _commit_sql(catalog: SqlCatalog, request: Request, changes: list[Change]) -> list[CommitTableResponse]:
    committed = sql_commit.commit(catalog, changes)
    for one in committed:
        # The table asks for it, and the commit that no longer lists these files is durable. The metadata files of a
        # topic's table have readers at any time: its own maintenance deletes them after a while.
        if one.before is not None and request.key(one.after.name()) not in request.topics:
            catalog._delete_old_metadata(one.after.io, one.before.metadata, one.after.metadata)
    return [_response(one.after) for one in committed]


def _commit_elsewhere(catalog: Catalog, change: Change) -> CommitTableResponse:
    try:
        table = catalog.load_table(change.identifier)
        change.check(table.metadata)
    except NoSuchTableError:
        if not change.creates:
            raise
        # A table that is not there yet: pyiceberg asks what it is given for nothing but its name.
        table = Table(change.identifier, None, "", None, catalog)  # type: ignore[arg-type]
    # The catalog behind us checks the requirements where it commits, so what was just loaded decides nothing else.
    return catalog.commit_table(table, change.requirements, change.updates)


def _response(table: Table) -> CommitTableResponse:
    return CommitTableResponse(metadata=table.metadata, metadata_location=table.metadata_location)  # type: ignore[call-arg]

"""What a client may not do to a table that a topic feeds, unless it insists.

Exactly once rests on what the committer keeps in the table (table/commit/progress.py): the progress in its snapshots,
a tag and a property. Reading, appending, deleting rows, compacting, expiring snapshots, changing the schema: all of
that is fine, as the committer takes up whatever it finds. A client that insists sends the header
`X-StreamLake-Force: true`.
"""

from collections.abc import Iterator, Sequence

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    AssignUUIDUpdate,
    RemovePropertiesUpdate,
    RemoveSnapshotRefUpdate,
    RemoveSnapshotsUpdate,
    SetPropertiesUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
    UpgradeFormatVersionUpdate,
)
from pyiceberg.typedef import Identifier

from streamlake.iceberg_rest.problem import Problem
from streamlake.iceberg_rest.request import Request
from streamlake.table.commit.progress import PROGRESS, TAG
from streamlake.table.commit.snapshot import FORMAT_VERSION
from streamlake.table.task.control import FORCE_HEADER


def check_removal(request: Request, identifier: Identifier, what: str) -> None:
    """Of dropping or renaming a table. Raises Problem."""
    if (topic := _topic(request, identifier)) is not None:
        raise _refused(identifier, topic, f"it cannot be {what}: set streamlake.table.enable=false on the topic first")


def check_commit(
    request: Request,
    identifier: Identifier,
    metadata: TableMetadata,
    requirements: Sequence[TableRequirement],
    updates: Sequence[TableUpdate],
) -> None:
    """`metadata`: of the table that the commit is for. Raises Problem."""
    if (topic := _topic(request, identifier)) is None:
        return
    for why in _breaks(metadata, requirements, updates):
        raise _refused(identifier, topic, why)


def _topic(request: Request, identifier: Identifier) -> str | None:
    return None if request.forced else request.topics.get(request.key(identifier))


def _refused(identifier: Identifier, topic: str, why: str) -> Problem:
    table = ".".join(identifier)
    return Problem(
        403,
        "ForbiddenException",
        f"table {table} is fed by topic {topic}, exactly once: {why}. To do it all the same, send {FORCE_HEADER}: true",
    )


def _breaks(
    metadata: TableMetadata, requirements: Sequence[TableRequirement], updates: Sequence[TableUpdate]
) -> Iterator[str]:
    tag = metadata.refs.get(TAG)
    fenced = any(isinstance(r, AssertRefSnapshotId) and r.ref == MAIN_BRANCH for r in requirements)
    for update in updates:
        match update:
            case RemoveSnapshotRefUpdate(ref_name=name) if name in (TAG, MAIN_BRANCH):
                yield f"{name} must stay, as it holds the snapshot with the topic's progress"
            case SetSnapshotRefUpdate(ref_name=name) if name == TAG:
                yield f"only StreamLake moves the tag {TAG}"
            case SetSnapshotRefUpdate(ref_name=name) if name == MAIN_BRANCH and not fenced:
                yield f"a commit that moves {MAIN_BRANCH} must require where it was (assert-ref-snapshot-id)"
            case RemoveSnapshotsUpdate(snapshot_ids=ids) if tag is not None and tag.snapshot_id in ids:
                yield f"snapshot {tag.snapshot_id} is tagged {TAG}, as it holds the topic's progress"
            case AddSnapshotUpdate(snapshot=added) if added.summary and PROGRESS in added.summary.additional_properties:
                yield f"only StreamLake writes snapshots with {PROGRESS}"
            case SetPropertiesUpdate(updates=changed) if PROGRESS in changed:
                yield f"only StreamLake sets the property {PROGRESS}"
            case RemovePropertiesUpdate(removals=removed) if PROGRESS in removed:
                yield f"the property {PROGRESS} must stay, as it holds the topic's progress"
            case AssignUUIDUpdate(uuid=uuid) if uuid != metadata.table_uuid:
                yield "its uuid must stay"
            case UpgradeFormatVersionUpdate(format_version=version) if version > FORMAT_VERSION:
                yield f"StreamLake writes format version {FORMAT_VERSION}"

"""Keeps the metadata of a table small: merges manifests, and removes files that no snapshot needs any more.

It never runs in the path of a commit or of an error. Each of its three jobs may be interrupted at any moment:
- `merge`: fifty manifests of a size class become one, in a fenced commit of its own with the same rows;
- `sweep`: what expiry left behind (manifest lists, their manifests, old metadata files), after a grace for readers;
- `remove_orphans`: files of failed attempts, whose names tell that they are ours and how old they are.
Before a job deletes, it asks what the retained snapshots still refer to, and nothing is deleted of a table with
`gc.enabled = false`. Data compaction is left to other engines.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from math import log

import structlog
from pyiceberg.manifest import ManifestEntry, ManifestFile, read_manifest_list
from pyiceberg.table import Table

from streamlake.catalogs.files.folders import Folders, delete_files, folders_of, path_of
from streamlake.core.clock import Clock
from streamlake.table.commit import snapshot
from streamlake.table.commit.committer import Committer
from streamlake.table.commit.expiry import may_remove
from streamlake.table.commit.progress import Progress
from streamlake.table.commit.snapshot import Staged

MERGE_AT = 50
MERGED_ENTRIES_MAX = MERGE_AT**2  # a manifest with more is big enough
GRACE_MS = 10 * 60_000
ORPHAN_AGE_MS = 24 * 3_600_000
ORPHANS_LISTED_MAX = 100_000
GARBAGE_MAX = 10_000
VERSIONS_KEPT = 100  # of metadata files that nothing refers to

_OURS = re.compile(r"(?:streamlake-(?:(?P<uuid>[0-9a-f-]{36})-)?|snap-\d+-)\d+-(?P<ms>[0-9a-f]{11})-[0-9a-f]{32}[-.].*")
_METADATA = re.compile(r"(?P<version>\d+)-[0-9a-f-]{36}\.metadata\.json")

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Garbage:
    """A file to which the table has not referred since `since_ms`; with an expired manifest list, its manifests."""

    location: str
    since_ms: int
    manifest_list: bool


class Maintenance:
    def __init__(self, committer: Committer, clock: Clock, grace_ms: int = GRACE_MS) -> None:
        self.merges = 0
        self.files_removed = 0
        self._committer = committer
        self._handle = committer.handle
        self._clock = clock
        self._grace_ms = grace_ms
        self._garbage: list[Garbage] = []
        self._last: Table | None = None

    def observe(self, table: Table) -> None:
        """Compare the table after a commit with the last call's, and note the files that it no longer needs."""
        last, self._last = self._last, table
        if last is None or last.metadata.table_uuid != table.metadata.table_uuid:
            return
        now_ms = self._clock.now_ms()
        lists = {s.manifest_list for s in table.metadata.snapshots}
        files = {entry.metadata_file for entry in table.metadata.metadata_log} | {table.metadata_location}
        expired = (s.manifest_list for s in last.metadata.snapshots if s.manifest_list not in lists)
        dropped = (e.metadata_file for e in last.metadata.metadata_log if e.metadata_file not in files)
        self._garbage += [Garbage(location, now_ms, True) for location in expired]
        self._garbage += [Garbage(location, now_ms, False) for location in dropped]
        del self._garbage[:-GARBAGE_MAX]  # while sweeping fails; what is dropped here is found as an orphan

    async def merge(self) -> Table | None:
        """Merge one crowded size class, if there is one. Raises what the catalog raises."""
        merged = await self._committer.replace(self._merged)
        self.merges += merged is not None
        return merged

    def _merged(self, table: Table, progress: Progress) -> Staged | None:
        manifests = list(self._handle.manifests(table))
        for crowd in _classes(manifests):
            if len(crowd) >= MERGE_AT:
                merged = {m.manifest_path for m in crowd}
                kept = [m for m in manifests if m.manifest_path not in merged]

                def entries(manifest: ManifestFile) -> Iterable[ManifestEntry]:
                    return manifest.fetch_manifest_entry(table.io)

                return snapshot.replace_manifests(table, kept, crowd, entries, progress, self._handle.stamp(table))
        return None

    @property
    def due(self) -> list[Garbage]:
        """Garbage older than the grace."""
        deadline_ms = self._clock.now_ms() - self._grace_ms
        return [g for g in self._garbage if g.since_ms <= deadline_ms]

    async def sweep(self, table: Table) -> None:
        """Remove garbage older than the grace. `table` is as the catalog has it now."""
        if due := self.due:
            if may_remove(table.metadata):
                self.files_removed += await self._handle.executor.run(_remove_garbage, table, due)
            self._garbage = [g for g in self._garbage if g not in due]

    async def remove_orphans(self, table: Table) -> None:
        """List the table's files and remove those of failed attempts, in stores that can be listed."""
        folders = folders_of(table.io)
        if folders and may_remove(table.metadata):
            now_ms = self._clock.now_ms()
            self.files_removed += await self._handle.executor.run(_remove_orphans, table, folders, now_ms)


def _classes(manifests: list[ManifestFile]) -> Iterator[list[ManifestFile]]:
    """Small data manifests by partition spec and size class: 1 to 49 entries, 50 to 2,499."""
    classes: dict[tuple[int, int], list[ManifestFile]] = {}
    for manifest in manifests:
        entries = (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)
        if snapshot.is_data(manifest) and 0 < entries < MERGED_ENTRIES_MAX:
            classes.setdefault((manifest.partition_spec_id, int(log(entries, MERGE_AT))), []).append(manifest)
    yield from classes.values()


def _remove_garbage(table: Table, due: list[Garbage]) -> int:
    needed = _needed_metadata(table)
    lists = {garbage.location for garbage in due if garbage.manifest_list}
    others = {garbage.location for garbage in due if not garbage.manifest_list}
    for location in tuple(lists):
        try:
            others.update(m.manifest_path for m in read_manifest_list(table.io.new_input(location)))
        except FileNotFoundError:  # another engine swept it
            lists.remove(location)
    # Nothing that is retained needs them, and no commit can bring them back: a new snapshot only carries on manifests
    # of the branch heads, which are retained. Manifest lists go last: they are the only lists of their manifests.
    for locations in (others - needed, lists - needed):
        delete_files(table.io, sorted(locations))
    return len((others | lists) - needed)


def _needed_metadata(table: Table) -> set[str]:
    """Metadata files, manifest lists and manifests that the retained snapshots need."""
    needed = {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
    for retained in table.metadata.snapshots:
        needed.add(retained.manifest_list)
        needed.update(m.manifest_path for m in read_manifest_list(table.io.new_input(retained.manifest_list)))
    return needed


def _needed_data(table: Table) -> Iterator[str]:
    seen: set[str] = set()
    for retained in table.metadata.snapshots:
        for manifest in read_manifest_list(table.io.new_input(retained.manifest_list)):
            if manifest.manifest_path not in seen:
                seen.add(manifest.manifest_path)
                yield from (e.data_file.file_path for e in manifest.fetch_manifest_entry(table.io))


def _remove_orphans(table: Table, folders: Folders, now_ms: int) -> int:
    provider = table.location_provider()
    suspects: dict[str, list[str]] = {}  # by path: data and metadata may lie in different stores
    for directory in (provider.data_path, provider.metadata_path):
        for location in folders.list_files(directory):
            if _is_orphan(location.rpartition("/")[2], table, now_ms):
                suspects.setdefault(path_of(location), []).append(location)
        if len(suspects) > ORPHANS_LISTED_MAX:
            logger.warning(
                "too many files to search for orphans: remove them with another engine", table=".".join(table.name())
            )
            return 0
    if not suspects:
        return 0
    # Old by its name and ours, and no retained snapshot needs it: its attempt failed long ago and cannot land any more,
    # because a commit in flight for a day would meet another head. One whose path is needed in any store is kept.
    for location in chain(_needed_metadata(table), _needed_data(table)):
        suspects.pop(path_of(location), None)
    orphans = sorted({location for found in suspects.values() for location in found})
    folders.delete_files(orphans)
    return len(orphans)


def _is_orphan(name: str, table: Table, now_ms: int) -> bool:
    """By its name alone: a file of an attempt of ours more than a day ago, or a metadata file that can never become
    current, because its version is too old."""
    if found := _OURS.fullmatch(name):
        ours = found["uuid"] in (None, str(table.metadata.table_uuid))
        return ours and int(found["ms"], 16) < now_ms - ORPHAN_AGE_MS
    if found := _METADATA.fullmatch(name):
        current = _METADATA.fullmatch(table.metadata_location.rpartition("/")[2])
        return current is not None and int(found["version"]) < int(current["version"]) - VERSIONS_KEPT
    return False

"""A classic group as it is stored: its members are the blob, and the table has columns for the rest."""

from dataclasses import dataclass

from streamlake.cluster.store.groups import GroupRow
from streamlake.coordinator.machine import Saved

CLASSIC = "classic"


@dataclass(frozen=True, slots=True)
class SavedGroup(Saved):
    protocol_type: str
    protocol: str | None
    leader: str | None  # member id

    @classmethod
    def of(cls, row: GroupRow) -> "SavedGroup":
        return cls(CLASSIC, row.generation, row.members, row.protocol_type, row.protocol, row.leader)

    def row(self, group_id: str, updated_ms: int) -> GroupRow:
        return GroupRow(
            group_id=group_id,
            generation=self.epoch,
            protocol_type=self.protocol_type,
            protocol=self.protocol,
            leader=self.leader,
            members=self.blob,
            updated_ms=updated_ms,
        )

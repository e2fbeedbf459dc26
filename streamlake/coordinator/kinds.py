"""The kinds of groups: makes their machines, new ones and those that were stored."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias
from uuid import UUID

import structlog

from streamlake.cluster.store.groups import GroupRow
from streamlake.coordinator.classic.group import Group
from streamlake.coordinator.classic.member import encode_members
from streamlake.coordinator.classic.stored import CLASSIC, SavedGroup
from streamlake.coordinator.consumer.api import Shapes
from streamlake.coordinator.consumer.group import ConsumerGroup
from streamlake.coordinator.consumer.stored import CONSUMER, NO_MEMBERS, SavedConsumerGroup
from streamlake.coordinator.settings import GroupSettings
from streamlake.core.errors import Corrupt

log = structlog.get_logger(__name__)

AnyGroup: TypeAlias = Group | ConsumerGroup


class Kinds:
    def __init__(self, settings: GroupSettings, shapes: Shapes, new_uuid: Callable[[], UUID]) -> None:
        self._settings = settings
        self._shapes = shapes
        self._new_uuid = new_uuid

    def classic(self, group_id: str) -> Group:
        return Group(group_id, self._settings, self._new_uuid)

    def consumer(self, group_id: str) -> ConsumerGroup:
        return ConsumerGroup(group_id, self._settings, self._shapes, self._new_uuid)

    def restored(self, row: GroupRow, now_ms: int) -> tuple[AnyGroup, bool]:
        """The group as it was stored, and True; without members, and False, if they cannot be read."""
        try:
            return self._restored(row, now_ms), True
        except Corrupt as error:
            log.error("members of a group lost; they must join again", group=row.group_id, error=str(error))
            nobody = NO_MEMBERS if row.kind == CONSUMER else encode_members(())
            return self._restored(replace(row, members=nobody), now_ms), False

    def _restored(self, row: GroupRow, now_ms: int) -> AnyGroup:
        if row.kind == CONSUMER:
            stored = SavedConsumerGroup.of(row)
            return ConsumerGroup.restored(row.group_id, stored, now_ms, self._settings, self._shapes, self._new_uuid)
        return Group.restored(row.group_id, SavedGroup.of(row), now_ms, self._settings, self._new_uuid)


def kind_of(group: AnyGroup) -> str:
    return CONSUMER if isinstance(group, ConsumerGroup) else CLASSIC

"""THE list: every API this broker serves, in which versions, and what handles it.

Dispatch, ApiVersions, metrics and docs/compatibility.md follow from it. `abandon`: while it waits, it waits for
others and changes nothing any more, so it ends with its connection, and a server that stops does not wait for it.
`begin`: tried first; a request that it can begin costs no task, and `handle` gets only those that it cannot. `runs`:
tried before that, for rows of requests that are alike.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from streamlake.handlers import (
    alter_configs,
    api_versions,
    consumer_group_heartbeat,
    create_partitions,
    create_topics,
    delete_groups,
    delete_records,
    delete_topics,
    describe_cluster,
    describe_configs,
    describe_groups,
    describe_topic_partitions,
    fetch,
    find_coordinator,
    heartbeat,
    incremental_alter_configs,
    init_producer_id,
    join_group,
    leave_group,
    list_config_resources,
    list_groups,
    list_offsets,
    metadata,
    offset_commit,
    offset_fetch,
    offset_for_leader_epoch,
    produce,
    produce_runs,
    sync_group,
)
from streamlake.handlers.context import Begin, Context, Handle
from streamlake.protocol.requests import Api, api


@dataclass(frozen=True, slots=True)
class Handler:
    api: Api
    handle: Handle
    abandon: bool = False
    begin: Begin | None = None
    runs: Callable[[Context, Mapping[int, Api], int], produce_runs.Runs | None] | None = None


def _upto(version: int, first: int = 0) -> range:
    return range(first, version + 1)


HANDLERS = (
    # Advertised from 0: librdkafka takes Produce 0 as the sign of compression (KAFKA-18659).
    Handler(api(0, _upto(13, 3), advertised_min=0), produce.handle, begin=produce.begin, runs=produce_runs.runs),
    Handler(api(1, _upto(18, 4)), fetch.handle, abandon=True),
    Handler(api(2, _upto(8, 1)), list_offsets.handle),
    Handler(api(3, _upto(13)), metadata.handle),
    Handler(api(8, _upto(9, 2)), offset_commit.handle),
    Handler(api(9, _upto(9, 1)), offset_fetch.handle),
    Handler(api(10, _upto(4)), find_coordinator.handle),
    Handler(api(11, _upto(9)), join_group.handle, abandon=True),
    Handler(api(12, _upto(4)), heartbeat.handle),
    Handler(api(13, _upto(5)), leave_group.handle),
    Handler(api(14, _upto(5)), sync_group.handle, abandon=True),
    Handler(api(15, _upto(6)), describe_groups.handle),
    Handler(api(16, _upto(5)), list_groups.handle),
    Handler(api(18, _upto(4)), api_versions.handle),
    Handler(api(19, _upto(7, 2)), create_topics.handle),
    Handler(api(20, _upto(6, 1)), delete_topics.handle),
    Handler(api(21, _upto(2)), delete_records.handle),
    Handler(api(22, _upto(4)), init_producer_id.handle),
    Handler(api(23, _upto(4, 2)), offset_for_leader_epoch.handle),
    Handler(api(32, _upto(4, 1)), describe_configs.handle),
    Handler(api(33, _upto(2)), alter_configs.handle),
    Handler(api(37, _upto(3)), create_partitions.handle),
    Handler(api(42, _upto(2)), delete_groups.handle),
    Handler(api(44, _upto(1)), incremental_alter_configs.handle),
    Handler(api(60, _upto(1)), describe_cluster.handle),
    # Only to say that it is not there: consumer_group_heartbeat.py.
    Handler(api(68, _upto(1)), consumer_group_heartbeat.handle),
    Handler(api(74, _upto(1)), list_config_resources.handle),
    Handler(api(75, _upto(0)), describe_topic_partitions.handle),
)

"""THE list: every API this broker serves, in which versions, and what handles it.

Dispatch, ApiVersions, metrics and docs/compatibility.md follow from it. `operation` is what an access control list will
have to allow (Kafka's AclOperation). `abandon`: while it waits, it waits for others and changes nothing any more, so it
ends with its connection, and a server that stops does not wait for it. `begin`: tried first; a request that it can
begin costs no task, and `handle` gets only those that it cannot. `runs`: tried before that, for rows of requests that
are alike.
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
    operation: str
    handle: Handle
    abandon: bool = False
    begin: Begin | None = None
    runs: Callable[[Context, Mapping[int, Api], int], produce_runs.Runs | None] | None = None


def _upto(version: int, first: int = 0) -> range:
    return range(first, version + 1)


HANDLERS = (
    # Advertised from 0: librdkafka takes Produce 0 as the sign of compression (KAFKA-18659).
    Handler(
        api(0, _upto(13, 3), advertised_min=0), "Write", produce.handle, begin=produce.begin, runs=produce_runs.runs
    ),
    Handler(api(1, _upto(18, 4)), "Read", fetch.handle, abandon=True),
    Handler(api(2, _upto(8, 1)), "Describe", list_offsets.handle),
    Handler(api(3, _upto(13)), "Describe", metadata.handle),
    Handler(api(8, _upto(9, 2)), "Read", offset_commit.handle),
    Handler(api(9, _upto(9, 1)), "Describe", offset_fetch.handle),
    Handler(api(10, _upto(4)), "Describe", find_coordinator.handle),
    Handler(api(11, _upto(9)), "Read", join_group.handle, abandon=True),
    Handler(api(12, _upto(4)), "Read", heartbeat.handle),
    Handler(api(13, _upto(5)), "Read", leave_group.handle),
    Handler(api(14, _upto(5)), "Read", sync_group.handle, abandon=True),
    Handler(api(15, _upto(6)), "Describe", describe_groups.handle),
    Handler(api(16, _upto(5)), "Describe", list_groups.handle),
    Handler(api(18, _upto(4)), "None", api_versions.handle),
    Handler(api(19, _upto(7, 2)), "Create", create_topics.handle),
    Handler(api(20, _upto(6, 1)), "Delete", delete_topics.handle),
    Handler(api(21, _upto(2)), "Delete", delete_records.handle),
    Handler(api(22, _upto(4)), "IdempotentWrite", init_producer_id.handle),
    Handler(api(23, _upto(4, 2)), "Describe", offset_for_leader_epoch.handle),
    Handler(api(32, _upto(4, 1)), "DescribeConfigs", describe_configs.handle),
    Handler(api(33, _upto(2)), "AlterConfigs", alter_configs.handle),
    Handler(api(37, _upto(3)), "Alter", create_partitions.handle),
    Handler(api(42, _upto(2)), "Delete", delete_groups.handle),
    Handler(api(44, _upto(1)), "AlterConfigs", incremental_alter_configs.handle),
    Handler(api(60, _upto(1)), "Describe", describe_cluster.handle),
    # Only to say that it is not there: consumer_group_heartbeat.py.
    Handler(api(68, _upto(1)), "Read", consumer_group_heartbeat.handle),
    Handler(api(74, _upto(1)), "DescribeConfigs", list_config_resources.handle),
    Handler(api(75, _upto(0)), "Describe", describe_topic_partitions.handle),
)

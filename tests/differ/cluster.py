"""ApiVersions, DescribeCluster, and requests that are not served."""

from differ.scenario import scenario
from differ.side import Side
from support.raw_kafka import frame

from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.api_versions import ApiVersionsRequest
from streamlake.protocol.messages.describe_cluster import DescribeClusterRequest
from streamlake.protocol.messages.metadata import MetadataRequest


@scenario
def metadata_of_an_empty_cluster(side: Side) -> None:
    """First of all, before Kafka has made its internal topics."""
    side.every("all topics of an empty cluster", ApiKey.METADATA, MetadataRequest(topics=None), range(1, 14))
    side.every("no topics", ApiKey.METADATA, MetadataRequest(topics=()))
    side.every(
        "with the cluster's operations",
        ApiKey.METADATA,
        MetadataRequest(topics=(), include_cluster_authorized_operations=True),
        range(8, 11),
    )


@scenario
def api_versions(side: Side) -> None:
    named = ApiVersionsRequest(client_software_name="differ", client_software_version="1.0")
    side.every("named", ApiKey.API_VERSIONS, named)
    side.every("without a name", ApiKey.API_VERSIONS, ApiVersionsRequest(), (3, 4))
    strange = ApiVersionsRequest(client_software_name="a b/c", client_software_version="1.0")
    side.every("with a strange name", ApiKey.API_VERSIONS, strange, (3, 4))
    for version in (5, 99, -1):
        side.raw("unknown version", ApiKey.API_VERSIONS, version, frame(18, version, b"\x00\x02a\x02b\x00"), 0)


@scenario
def not_served(side: Side) -> None:
    side.raw("unknown version", ApiKey.METADATA, 99, frame(3, 99, b"\x00" * 20))
    side.raw("unknown version", ApiKey.HEARTBEAT, 99, frame(12, 99, b"\x00" * 20))
    side.raw("version below zero", ApiKey.METADATA, -1, frame(3, -1, b"\x00" * 20))
    side.raw("key 999", ApiKey.METADATA, 0, frame(999, 0, b"\x00" * 20))
    side.raw("cut off", ApiKey.METADATA, 1, frame(3, 1, b"\x00\x00\x00\x05\x00"))
    side.raw("array longer than the frame", ApiKey.METADATA, 2, frame(3, 1, b"\x7f\xff\xff\xff"))


@scenario
def describe_cluster(side: Side) -> None:
    for wanted in (False, True):
        note = "with operations" if wanted else "plain"
        side.every(note, ApiKey.DESCRIBE_CLUSTER, DescribeClusterRequest(include_cluster_authorized_operations=wanted))
    side.ask("fenced ones, too", ApiKey.DESCRIBE_CLUSTER, 2, DescribeClusterRequest(include_fenced_brokers=True))
    for kind in (2, 0, 3, -1):
        side.ask(f"endpoint type {kind}", ApiKey.DESCRIBE_CLUSTER, 1, DescribeClusterRequest(endpoint_type=kind))

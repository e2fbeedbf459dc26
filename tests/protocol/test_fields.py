from uuid import UUID

from streamlake.protocol.fields import fields_at, fields_of
from streamlake.protocol.messages import fetch, metadata


def test_facts_are_read_from_the_annotation() -> None:
    fields = {f.name: f for f in fields_of(fetch.FetchRequest)}
    topics = fields["topics"]
    assert (topics.kind, topics.is_array, topics.struct) == ("struct", True, fetch.FetchTopic)
    assert topics.versions[0] == 4 and 30_000 in topics.versions and not topics.null_versions
    assert fields["replica_id"].versions == range(4, 15)
    assert fields["cluster_id"].tag == 0 and 12 in fields["cluster_id"].null_versions
    assert fields["replica_state"].default == fetch.ReplicaState()
    assert fields["max_bytes"].where == "FetchRequest.max_bytes" and fields["max_bytes"].format == "i"


def test_null_versions_differ_from_versions() -> None:
    topics = next(f for f in fields_of(metadata.MetadataRequest) if f.name == "topics")
    assert 0 in topics.versions and 0 not in topics.null_versions and 1 in topics.null_versions


def test_fields_at_a_version_stand_in_wire_order() -> None:
    assert [f.name for f in fields_at(metadata.MetadataResponseTopic, 10)] == [
        "error_code",
        "name",
        "topic_id",
        "is_internal",
        "partitions",
        "topic_authorized_operations",
    ]
    assert "topic_id" not in [f.name for f in fields_at(metadata.MetadataResponseTopic, 9)]


def test_a_uuid_is_never_null_on_the_wire() -> None:
    topic_id = next(f for f in fields_of(metadata.MetadataResponseTopic) if f.name == "topic_id")
    assert topic_id.default is None and not topic_id.null_versions
    assert metadata.MetadataResponseTopic(topic_id=UUID(int=1)).topic_id == UUID(int=1)

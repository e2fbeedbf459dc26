"""Authorized operations: the sets that Kafka answers without an authorizer."""

from streamlake.handlers import operations


def test_the_sets_are_kafkas() -> None:
    assert (operations.TOPIC, operations.GROUP, operations.CLUSTER) == (3576, 3400, 8096)
    assert operations.NOT_ASKED == -2147483648

"""Replica assignments: which brokers shall have a partition.

There is one replica of every partition here, on the broker that leads it (the object store keeps the copies), so the
only right one is this broker alone. What is wrong with another is said as Kafka says it.
"""

from collections.abc import Collection, Sequence

from streamlake.core.errors import Invalid


def check_target(replicas: Sequence[int]) -> None:
    """Of a partition that is moved: one broker, whichever; Invalid."""
    if len(replicas) != 1:
        raise Invalid(
            f"a partition has one replica here, at the broker that leads it, as the object store keeps the copies: name"
            f" one broker, not {len(replicas)}: {list(replicas)}"
        )


def check_replicas(assignments: Collection[Sequence[int]], node_id: int) -> None:
    """One partition after the other; Invalid."""
    for brokers in assignments:
        if not brokers:
            raise Invalid("a replica assignment must name at least one broker for each partition")
        if len(set(brokers)) < len(brokers):
            raise Invalid(f"a replica assignment names a broker more than once: {list(brokers)}")
        for broker in brokers:
            if broker != node_id:
                raise Invalid(f"a replica assignment names broker {broker}, which is not there: this is {node_id}")

"""A short campaign of troubles on a cluster of real processes; `make crash-cluster ROUNDS=50` is the long one."""

import random
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import crash_cluster
from support.cluster_processes import Broker, Cluster

from streamlake.core.errors import Unavailable
from streamlake.lake.child_server import ChildServer


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where `nobody` may go, as whom PostgreSQL runs for root."""
    with tempfile.TemporaryDirectory(prefix="crash-cluster-") as name:
        yield Path(name)


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_by_the_end_of_a_broker_and_of_postgresql(folder: Path) -> None:
    totals, campaign = crash_cluster.run(folder, rounds=3, seed=1, only=["kill", "postgres", "move"])
    assert totals["rounds"] == 3 and totals["records"] > 1000
    assert {r["trouble"] for r in campaign.rounds} == {"kill", "postgres", "move"}


def broken(broker: Broker, change: Callable[[str], str], folder: Path) -> str:
    """What a server says that has this broker's configuration, changed, and cannot be started."""
    folder.mkdir()
    config = folder / "streamlake.toml"
    config.write_text(change(broker.config.read_text()))
    with pytest.raises(Unavailable) as refused:
        ChildServer(folder, config)
    return str(refused.value)


@pytest.mark.slow
def test_a_server_that_is_configured_wrongly_says_so_and_harms_nobody(folder: Path) -> None:
    cluster = Cluster(folder)
    try:
        before = cluster.sql("SELECT node, epoch, state FROM broker ORDER BY node")
        pids = [broker.server and broker.server.pid for broker in cluster.brokers]
        one = cluster.brokers[1]
        cluster.sql_alone("CREATE DATABASE other")
        bucket = cluster.weed.bucket()

        def other_bucket(text: str) -> str:
            return re.sub('url = "s3://[^/]*/', f'url = "s3://{bucket}/', text).replace("node_id = 1", "node_id = 7")

        def other_metadata(text: str) -> str:
            return text.replace('/postgres"', '/other"').replace("node_id = 1", "node_id = 7")

        said = broken(one, lambda text: text, folder / "same-node")
        assert "another server with node_id 1 is running" in said and "server.node_id" in said
        said = broken(one, other_bucket, folder / "other-bucket")
        assert "is not the store that this cluster has used" in said and bucket in said
        said = broken(one, other_metadata, folder / "other-metadata")
        assert "belongs to cluster" in said and "metadata_url" in said
        said = broken(one, lambda text: text.replace('/postgres"', '/nowhere"'), folder / "no-database")
        assert "storage.metadata_url" in said and '"nowhere" does not exist' in said
        cluster.sql_alone("ALTER DATABASE other SET default_transaction_read_only = on")
        said = broken(one, other_metadata, folder / "read-only")
        assert "read-only: give the URL of the primary" in said

        assert [broker.server and broker.server.pid for broker in cluster.brokers] == pids
        after = cluster.sql("SELECT node, epoch, state FROM broker ORDER BY node")
        assert [row for row in after if row[0] < len(pids)] == before
        assert all(broker.server and broker.server.why_it_ended() is None for broker in cluster.brokers)
    finally:
        cluster.close()


@pytest.mark.slow
def test_produce_goes_on_while_postgresql_is_away_with_more_than_the_caches_hold(folder: Path) -> None:
    """60 s at 20 MB/s is a round of `make crash-cluster ONLY=postgres-long`; this is the same with small caches."""
    cluster = Cluster(folder, log_cache_bytes=4 << 20)
    try:
        crash_cluster.postgres_long(cluster, random.Random(1), seconds=5, megabytes=60)
    finally:
        cluster.close()

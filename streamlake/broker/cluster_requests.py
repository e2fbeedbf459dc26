"""Requests of operators about the cluster, as http/cluster.py takes them: what it looks like, and drains of brokers."""

from typing import Any

from streamlake.broker.wal import listed_uri
from streamlake.cluster.store.administration import Administration, ClusterStatus, Placed
from streamlake.cluster.store.drains import DrainRow
from streamlake.cluster.store.membership import BrokerInfo
from streamlake.config import Config


class ClusterRequests:
    """Implements http.cluster.Cluster."""

    def __init__(self, administration: Administration, config: Config) -> None:
        self._administration = administration
        self._config = config

    async def status(self) -> dict[str, Any]:
        return _described(await self._administration.status(), self._config)

    async def progress(self, node: int) -> dict[str, Any]:
        status = await self._administration.status()
        return _broker(status, status.view.brokers[node]) | {"done": status.is_empty(node)}

    async def drain(self, node: int, *, until_restart: bool) -> None:
        await self._administration.drain(node, until_restart=until_restart)

    async def undrain(self, node: int) -> None:
        await self._administration.undrain(node)


def _described(status: ClusterStatus, config: Config) -> dict[str, Any]:
    """docs/guides/cluster.md explains it."""
    view = status.view
    term = view.term
    return {
        "controller": term.node if term is not None and view.is_running(term.node, term.broker_epoch) else None,
        "brokers": [_broker(status, broker) for broker in view.brokers.values()],
        "moves": _moves(status),
        "drains": [_drain(drain) for drain in view.drains if not drain.done],
        "offline": [
            {"partitions": placed.partitions, "node": placed.node, "reason": _reason(status, placed, config)}
            for placed in status.placed
            if _is_offline(status, placed)
        ],
    }


def _broker(status: ClusterStatus, broker: BrokerInfo) -> dict[str, Any]:
    return {
        "node": broker.node,
        "state": broker.state,
        "drained": broker.drained,
        "address": f"{broker.host}:{broker.port}",
        "epoch": broker.epoch,
        "partitions": status.assigned(broker.node),
        "open": status.owned(broker.node),
        "slots": status.slots.get(broker.node, 0),
    }


def _drain(drain: DrainRow) -> dict[str, Any]:
    part = drain.part
    return {
        "node": part.wal.node,
        "wal": part.wal.uri,
        "epoch": part.wal.epoch,
        "part": part.part,
        "parts": part.parts,
        "by": drain.by_node,
    }


def _moves(status: ClusterStatus) -> list[dict[str, Any]]:
    """From a broker that runs, by source and target."""
    counts: dict[tuple[int, int | None], int] = {}
    for placed in status.placed:
        if placed.owner not in (None, placed.node) and status.view.is_running(placed.owner, placed.owner_epoch):
            key = placed.owner, placed.node
            counts[key] = counts.get(key, 0) + placed.partitions
    ordered = sorted(counts.items(), key=str)
    return [{"from": source, "to": target, "partitions": count} for (source, target), count in ordered]


def _is_offline(status: ClusterStatus, placed: Placed) -> bool:
    """Nobody who lives has these partitions open, and nobody can open them now."""
    view = status.view
    if placed.owner is not None:
        return not view.is_running(placed.owner, placed.owner_epoch)
    target = view.brokers.get(placed.node) if placed.node is not None else None
    return target is None or not target.may_run


def _reason(status: ClusterStatus, placed: Placed, config: Config) -> str:
    owner, view = placed.owner, status.view
    if owner is None:
        return "they are not assigned to a broker that runs: the controller assigns them as soon as one is there"
    wals = [row for row in view.wals if row.node == owner and row.epoch >= placed.owner_epoch]
    drains = [drain for drain in view.drains if drain.part.wal.node == owner]
    if drains:
        left = sorted({drain.by_node for drain in drains if not drain.done})
        by = ", ".join(map(str, left))
        return f"the write-ahead log of broker {owner} is being drained" + (f" by {by}" if by else "")
    for row in wals:
        uri = listed_uri(config, row.uri)
        if uri.kind == "file" and not uri.shared:
            return (
                f"broker {owner} is not there, and its write-ahead log is on its own disk: start node_id {owner} again,"
                " where its data directory is"
            )
    return f"broker {owner} is not there: its write-ahead log is given to others next"

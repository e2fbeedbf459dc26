"""Pokes: who commits a change of the cluster tells the other brokers, so that they look at once.

The metadata store decides, messages only hurry. Every beat of a broker shows it the revision anyway, so a poke may be
lost, late or repeated. Each broker has at most one poke under way, and one number to be told after it.

The connections for pokes stand as long as both brokers live. One that ends, while nobody listens at the other end any
more, says that this broker is gone, a second or more before its beats do: clients are told so (cluster/brokers.py).
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from streamlake.broker.peers import connection
from streamlake.cluster.brokers import Brokers
from streamlake.cluster.secret import ClusterSecret, Life
from streamlake.core.errors import StreamLakeError
from streamlake.core.sockets import may_be_elsewhere, refuses
from streamlake.core.tasks import Supervisor
from streamlake.peers.brokers import BrokerPeer
from streamlake.telemetry.metric import Metric, counter

ANSWER_TIMEOUT_S = 1.0  # more than a beat: later it is of no use
PROBE_S = 0.3  # for an answer of a port
PROBES, PROBE_PAUSE_S = 5, 0.1  # a process that is killed closes its sockets one after the other


NOTHING_NEW = 0  # a revision that every broker has


@dataclass(slots=True, eq=False)
class _Line:
    """To one life of another broker."""

    peer: BrokerPeer
    revision: int = -1  # to be told next
    is_busy: bool = False


class Pokes:
    def __init__(self, brokers: Brokers, secret: ClusterSecret, tasks: Supervisor) -> None:
        self.sent = 0
        self.failed = 0
        self._brokers = brokers
        self._secret = secret
        self._tasks = tasks
        self._lines: dict[tuple[Life, str, int], _Line] = {}
        self._closed = False

    def metrics(self) -> Iterable[Metric]:
        return (
            counter("streamlake_pokes", "Pokes by which other brokers were told of a change of the cluster.",
                lambda: self.sent),
            counter("streamlake_pokes_failed",
                "Pokes that did not reach their broker, which its next beat makes up for.", lambda: self.failed),
        )  # fmt: skip

    def tell(self, revision: int) -> None:
        """The metadata store has this revision: all other brokers that serve get to know it soon."""
        self.follow()
        for line in self._lines.values():
            self._tell(line, revision)

    def follow(self) -> None:
        """Connect to the brokers that serve now, and to no others."""
        if self._closed:
            return
        lines: dict[tuple[Life, str, int], _Line] = {}
        for broker in self._brokers.serving():
            if broker.node != self._brokers.node:
                key = (Life(broker.node, broker.epoch), broker.host, broker.port)
                lines[key] = self._lines.get(key) or self._line(*key)
        before, self._lines = self._lines, lines
        for key, line in before.items():
            if key not in lines:
                self._tasks.start("end of a connection", line.peer.close())
        for key, line in lines.items():
            if key not in before:
                self._tell(line, NOTHING_NEW)

    async def close(self) -> None:
        self._closed = True
        for line in self._lines.values():
            await line.peer.close()

    def _tell(self, line: _Line, revision: int) -> None:
        line.revision = max(line.revision, revision)
        if not line.is_busy:
            line.is_busy = True
            self._tasks.start("poke", self._send(line))

    def _line(self, life: Life, host: str, port: int) -> _Line:
        on_lost = partial(self._lost, life, host, port)
        return _Line(connection(self._brokers, self._secret, life, host, port, ANSWER_TIMEOUT_S, on_lost))

    def _lost(self, life: Life, host: str, port: int) -> None:
        if not self._closed:
            self._tasks.start("look at a broker that has gone", self._probe(life, host, port))

    async def _probe(self, life: Life, host: str, port: int) -> None:
        own = self._brokers.get(self._brokers.node)
        if own is not None and may_be_elsewhere(host, own.host):
            return
        for _ in range(PROBES):
            while self._brokers.should_serve(life) and await refuses(host, port, PROBE_S):
                self._brokers.refuses(life)
                await asyncio.sleep(PROBE_PAUSE_S)
            self._brokers.accepts(life)
            await asyncio.sleep(PROBE_PAUSE_S)

    async def _send(self, line: _Line) -> None:
        told = -1
        try:
            while line.revision > told:
                told = line.revision
                await line.peer.poke(told)
                self.sent += 1
        except StreamLakeError:
            self.failed += 1
        finally:
            line.is_busy = False

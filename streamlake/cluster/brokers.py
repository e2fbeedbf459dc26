"""The brokers of the cluster, as this one saw them in its last beat.

A beat (store/membership.py) reads all brokers and the revision of the metadata store. So clients are told of a broker,
and an image (image.py) notices what another broker has changed, one beat later at most. Pokes (broker/pokes.py) make it
notice sooner.

Clients are not sent to a broker that answers nobody, as its port refuses (broker/pokes.py) or it does not beat
(broker/controller.py), though it may be some time until it is fenced. librdkafka must not learn of a broker's end and
of its successor in one answer: it then forgets the successor, and asks again a second later.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from streamlake.cluster.image import CanBeStale
from streamlake.cluster.secret import Life
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.membership import BeatView, BrokerInfo
from streamlake.cluster.store.schema import SERVING


class Brokers:
    """`seen` is a listener of the beats. Before the first one this broker knows itself alone."""

    def __init__(self, identity: BrokerIdentity, host: str, port: int) -> None:
        """`host` and `port`: where clients find this broker."""
        self.cluster_id = identity.cluster_id
        self.images: list[CanBeStale] = []  # marked as stale when a beat shows a revision that they do not have
        self.listeners: list[Callable[[], None]] = []  # called on the loop when a broker is there, or not any more
        self._own = BrokerInfo(identity.node, identity.epoch, 0, SERVING, host, port)
        self._found = {identity.node: self._own}  # that serve, by their rows
        self._refusing: set[Life] = set()
        self._still: frozenset[Life] = frozenset()
        self._serving = self._found

    @property
    def node(self) -> int:
        """This broker."""
        return self._own.node

    @property
    def life(self) -> Life:
        """Of this broker."""
        return Life(self._own.node, self._own.epoch)

    @property
    def controller(self) -> int:
        """The broker that clients are told to ask for changes of the cluster. Every broker makes them."""
        return self._own.node

    def get(self, node: int) -> BrokerInfo | None:
        """None if clients cannot be sent to this broker: it is not there, or was not yet when this one beat last."""
        return self._serving.get(node)

    def serving(self) -> list[BrokerInfo]:
        """All that clients can be sent to, by node."""
        return list(self._serving.values())

    def should_serve(self, life: Life) -> bool:
        """Whether this life of a broker serves, as far as its row says."""
        found = self._found.get(life.node)
        return found is not None and found.epoch == life.epoch

    @property
    def others_are_available(self) -> bool:
        """Whether another broker can take what this one has, by its row: one that is late may do it all the same."""
        return any(b.is_available and b.node != self.node for b in self._found.values())

    def seen(self, view: BeatView) -> None:
        # Whoever asks has found this broker, whatever its row says at the moment. Beats count in every view.
        found = {b.node: replace(b, beat=0) for b in view.brokers if b.serves or b.node == self.node}
        found[self.node] = self._own
        self._found = found
        self._look()
        self.revised(view.revision)

    def refuses(self, life: Life) -> None:
        """The port of that broker refuses, until `accepts` says otherwise."""
        self._refusing.add(life)
        self._look()

    def accepts(self, life: Life) -> None:
        self._refusing.discard(life)
        self._look()

    def stand_still(self, lives: Iterable[Life]) -> None:
        """These have not beaten for long, and no others."""
        self._still = frozenset(lives)
        self._look()

    def _look(self) -> None:
        away = self._refusing | self._still
        serving = {n: b for n, b in sorted(self._found.items()) if n == self.node or Life(n, b.epoch) not in away}
        if serving != self._serving:
            self._serving = serving
            for listener in self.listeners:
                listener()

    def revised(self, revision: int) -> None:
        """The metadata store has this revision: images that are behind are to be read again."""
        for image in self.images:
            if image.revision < revision:
                image.stale.set()

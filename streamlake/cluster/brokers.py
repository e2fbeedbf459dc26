"""The brokers of the cluster, as this one saw them in its last beat.

A beat (store/membership.py) reads all brokers and the revision of the metadata store. So clients are told of a broker,
and an image (image.py) notices what another broker has changed, one beat later at most. Pokes (broker/pokes.py) make it
notice sooner.
"""

from collections.abc import Callable
from dataclasses import replace

from streamlake.cluster.image import Image
from streamlake.cluster.secret import Life
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.membership import BeatView, BrokerInfo
from streamlake.cluster.store.schema import SERVING


class Brokers:
    """`seen` is a listener of the beats. Before the first one this broker knows itself alone."""

    def __init__(self, identity: BrokerIdentity, host: str, port: int) -> None:
        """`host` and `port`: where clients find this broker."""
        self.cluster_id = identity.cluster_id
        self.images: list[Image] = []  # marked as stale when a beat shows a revision that they do not have
        self.listeners: list[Callable[[], None]] = []  # called on the loop when a broker is there, or not any more
        self._own = BrokerInfo(identity.node, identity.epoch, 0, SERVING, host, port)
        self._serving = {identity.node: self._own}

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

    @property
    def others_are_available(self) -> bool:
        """Whether another broker can take what this one has."""
        return any(b.is_available and b.node != self.node for b in self._serving.values())

    def seen(self, view: BeatView) -> None:
        # Whoever asks has found this broker, whatever its row says at the moment. Beats count in every view.
        found = {b.node: replace(b, beat=0) for b in view.brokers if b.serves or b.node == self.node}
        found[self.node] = self._own
        if found != self._serving:
            self._serving = dict(sorted(found.items()))
            for listener in self.listeners:
                listener()
        self.revised(view.revision)

    def revised(self, revision: int) -> None:
        """The metadata store has this revision: images that are behind are to be read again."""
        for image in self.images:
            if image.revision < revision:
                image.stale.set()

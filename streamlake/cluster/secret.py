"""What only brokers of one cluster can prove: they all read one secret from the metadata store.

The secret itself never leaves a broker. What is sent is a proof for one connection: that this life of a node speaks to
that one. Who overhears it can say the same to the same broker again, as long as both live; so what is said after it
must do no harm when it is repeated.
"""

import hmac
from typing import NamedTuple

SECRET_BYTES = 32


class Life(NamedTuple):
    """One life of a broker."""

    node: int
    epoch: int


class ClusterSecret:
    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def proof(self, sender: Life, receiver: Life) -> bytes:
        said = f"streamlake hello {sender.node} {sender.epoch} {receiver.node} {receiver.epoch}"
        return hmac.digest(self._secret, said.encode(), "sha256")

    def is_proof(self, proof: bytes, sender: Life, receiver: Life) -> bool:
        return hmac.compare_digest(proof, self.proof(sender, receiver))

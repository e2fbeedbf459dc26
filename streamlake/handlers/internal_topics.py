"""Names that Kafka keeps for itself.

What Kafka keeps in these topics, StreamLake keeps in its metadata store: nobody reads or writes them here. An ordinary
topic of such a name would only mislead the tools that look into it, so none is made.
"""

from typing import NamedTuple

from streamlake.protocol.errors import ErrorCode


class Reserved(NamedTuple):
    code: ErrorCode  # Kafka's answer to who wants to create it
    message: str


_EXISTS = "{} is Kafka's own and cannot be created: what Kafka keeps there, StreamLake keeps in its metadata store"

RESERVED = {
    "__consumer_offsets": Reserved(ErrorCode.TOPIC_ALREADY_EXISTS, _EXISTS.format("__consumer_offsets")),
    "__transaction_state": Reserved(ErrorCode.TOPIC_ALREADY_EXISTS, _EXISTS.format("__transaction_state")),
    "__cluster_metadata": Reserved(ErrorCode.INVALID_REQUEST, "__cluster_metadata is no topic that can be created"),
}

"""Messages between brokers of one cluster, on the Kafka port: one module per kind, in the form of Kafka's messages.

ApiVersions does not tell them, so no client asks. Each connection begins with Hello; all else is refused before it.
"""

from enum import IntEnum

FIRST_KEY = 20_000  # Kafka's own are far below


class BrokerKey(IntEnum):
    HELLO = 20_000
    POKE = 20_001
    WRITE_MARKERS = 20_002
    JOIN_TRANSACTIONS = 20_003

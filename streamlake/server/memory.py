"""The memory that requests and answers of all connections may take, and what is exported of it."""

from collections.abc import Iterable

from streamlake.core.account import Account
from streamlake.telemetry.metric import Metric, counter, gauge


class ConnectionMemory(Account):
    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.pauses = 0

    def metrics(self) -> Iterable[Metric]:
        return (
            gauge("streamlake_connection_memory_bytes", "Bytes of requests and answers that connections hold.",
                lambda: self.held_bytes),
            gauge("streamlake_connection_memory_limit_bytes",
                "Bytes of requests and answers from which on connections get one request at a time.",
                lambda: self.limit_bytes),
            counter("streamlake_connection_memory_pauses",
                "Times that a connection was not read from because connections held too much memory.",
                lambda: self.pauses),
        )  # fmt: skip

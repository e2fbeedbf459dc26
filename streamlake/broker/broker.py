"""A broker from its Kafka port down: what a server process and a simulated cluster have in common.

    recover   the services are there (services.py); nobody is answered yet
    serve     the Kafka port answers, and the table worker runs

Both add what stops a part to a list that belongs to the caller, in the order of the starts: services.undo_all stops the
last one first. Between the two a server process adds its HTTP port.
"""

import socket
from collections.abc import Awaitable, Callable

from streamlake.broker.machine import Machine
from streamlake.broker.services import Services, Undo
from streamlake.broker.table_worker import TableWorker
from streamlake.broker.worker_process import WorkerProcess
from streamlake.config import Config
from streamlake.core.tasks import Supervisor
from streamlake.handlers.apis import HANDLERS, OF_BROKERS
from streamlake.server.listener import Listener
from streamlake.table.task.control import WorkerSettings


class Broker:
    """`kafka`: a socket that is bound and does not listen yet. `on_fatal`: what cannot be survived; the process must
    end."""

    def __init__(
        self, config: Config, machine: Machine, kafka: socket.socket, on_fatal: Callable[[BaseException], None]
    ) -> None:
        self.services = Services(config, machine, on_fatal)
        self.is_ready = False  # clients should be sent here
        self.listener = Listener(kafka, config.server.connections_max, config.server.request_bytes_max)
        self.tasks = Supervisor(lambda _, error: self.services.fail(error))
        self._config = config
        self._machine = machine

    async def recover(self, host: str, port: int, undo: list[tuple[str, Undo]]) -> None:
        """`host` and `port`: where clients are told to find this broker."""
        undo.append(("services", self.services.stop))
        await self.services.start(host, port)
        undo.append(("tasks", self.tasks.stop))

    def table_worker(self, settings: WorkerSettings, launch: Callable[[], Awaitable[WorkerProcess]]) -> TableWorker:
        """Of the services of this broker, not started yet."""
        services = self.services
        return TableWorker(
            settings,
            services.topics,
            services.configs,
            services.progress,
            services.logs,
            self._machine.clock,
            self._machine.ids,
            launch,
        )

    async def serve(self, worker: TableWorker, undo: list[tuple[str, Undo]]) -> None:
        services = self.services
        await self.listener.start(services.context(), HANDLERS + OF_BROKERS, services.connection_memory)
        await services.membership.serve()  # only now: clients that are sent here find an open port
        # Requests under way need all that was started before, so they end first.
        undo.append(("listener", lambda: self.listener.stop(self._config.server.shutdown_timeout_s)))
        if self._config.tables.enabled:
            self.tasks.start("table worker", worker.run())
            undo.append(("table worker", worker.stop))
        undo.append(("what other brokers can have", self._move_away))
        self.is_ready = True

    async def _move_away(self) -> None:
        self.is_ready = False
        await self.services.move_away()

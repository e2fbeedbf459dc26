"""A topic is copied into another one, exactly once, by a process that is killed again and again.

`Copier` runs this file as a process. It reads in a group, and each of its transactions has some records and the offsets
behind them. It repairs nothing: after any error it ends, and the next one begins where the last commit has left off. So
it does when the client library hangs: librdkafka 2.16 may wait for ever in send_offsets_to_transaction, and sends nothing,
when the broker has gone away meanwhile.
"""

import itertools
import signal
import subprocess
import sys
import threading
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

QUIET = {"log_level": 0, "reconnect.backoff.max.ms": 500}
RECORDS_MAX = 500  # of a transaction
POLL_S = 0.2
WAIT_S = 10.0  # for one answer of a broker
HUNG_S = 20
COPIER = "copier"


def copy(bootstrap: str, source: str, target: str) -> None:
    """Until something fails or hangs."""
    client = {**QUIET, "bootstrap.servers": bootstrap}
    consumer = Consumer(
        {
            **client,
            "group.id": COPIER,
            "group.instance.id": COPIER,  # the next process need not wait until the group has missed this one
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    producer = Producer({**client, "transactional.id": COPIER, "linger.ms": 1})
    producer.init_transactions(WAIT_S)  # only then: what the last process left open is aborted, and its offsets go
    consumer.subscribe([source])
    while True:
        signal.alarm(HUNG_S)  # it ends the process: Python's own handlers would wait for the library
        messages = consumer.consume(RECORDS_MAX, POLL_S)
        if not messages:
            continue
        producer.begin_transaction()
        behind: dict[int, int] = {}
        for message in messages:
            if message.error() is not None:
                raise KafkaException(message.error())
            producer.produce(target, message.value(), partition=message.partition())
            behind[message.partition()] = message.offset() + 1
        offsets = [TopicPartition(source, partition, offset) for partition, offset in behind.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), WAIT_S)
        producer.commit_transaction(WAIT_S)


class Copier:
    """Between `start` and `stop` there is always a process, or will be soon."""

    def __init__(self, bootstrap: str, source: str, target: str) -> None:
        self.lives = 0
        self._command = [sys.executable, __file__, bootstrap, source, target]
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep)

    def start(self) -> None:
        self._thread.start()

    def _keep(self) -> None:
        for life in itertools.count(1):
            if self._stopping.is_set():
                return
            self.lives = life
            self._process = subprocess.Popen(self._command, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL)
            if self._stopping.is_set():
                self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        self._stopping.set()
        self.kill()
        self._thread.join()


if __name__ == "__main__":
    copy(*sys.argv[1:])

"""librdkafka called without a line of Python per record: the native load of `streamlake bench`.

The confluent-kafka wheel carries librdkafka; its own Python calls cost about a microsecond a record, which on a small
machine is more than the broker's share. So thousands of records go in by one `rd_kafka_produce_batch`, uncopied, and
come out by one `rd_kafka_consume_batch_queue`. Deliveries that failed and statistics arrive as events.

Names, structs and error numbers are those of librdkafka's rdkafka.h, whose ABI is stable.
"""

import ctypes
import ctypes.util
import glob
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from streamlake.core.errors import Invalid, Unavailable
from streamlake.core.version import install_hint

_PRODUCER, _CONSUMER = 0, 1
_EVENT_DR, _EVENT_ERROR, _EVENT_STATS = 0x1, 0x8, 0x40
_CONF_OK = 0
_ALL_BROKERS_DOWN = -187
_PURGE_ALL = 0x1 | 0x2  # queued and in flight
_OFFSET_BEGINNING = -2
_ERROR_BYTES = 512
STATISTICS_MS = 100
BATCH_RECORDS = 4096  # of one call

Settings = Mapping[str, str | int | float | bool]
"""librdkafka's configuration keys."""


class _Message(ctypes.Structure):
    _fields_ = (
        ("err", ctypes.c_int),
        ("rkt", ctypes.c_void_p),
        ("partition", ctypes.c_int32),
        ("payload", ctypes.c_void_p),
        ("len", ctypes.c_size_t),
        ("key", ctypes.c_void_p),
        ("key_len", ctypes.c_size_t),
        ("offset", ctypes.c_int64),
        ("_private", ctypes.c_void_p),
    )


_P, _S, _I, _N = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "rd_kafka_conf_new": (_P, []),
    "rd_kafka_conf_set": (_I, [_P, _S, _S, _P, _N]),
    "rd_kafka_conf_destroy": (None, [_P]),
    "rd_kafka_conf_set_events": (None, [_P, _I]),
    "rd_kafka_new": (_P, [_I, _P, _P, _N]),
    "rd_kafka_destroy": (None, [_P]),
    "rd_kafka_topic_new": (_P, [_P, _S, _P]),
    "rd_kafka_topic_destroy": (None, [_P]),
    "rd_kafka_produce_batch": (_I, [_P, ctypes.c_int32, _I, _P, _I]),
    "rd_kafka_outq_len": (_I, [_P]),
    "rd_kafka_flush": (_I, [_P, _I]),
    "rd_kafka_purge": (_I, [_P, _I]),
    "rd_kafka_err2str": (_S, [_I]),
    "rd_kafka_queue_new": (_P, [_P]),
    "rd_kafka_queue_get_main": (_P, [_P]),
    "rd_kafka_queue_poll": (_P, [_P, _I]),
    "rd_kafka_queue_destroy": (None, [_P]),
    "rd_kafka_event_type": (_I, [_P]),
    "rd_kafka_event_stats": (_S, [_P]),
    "rd_kafka_event_error": (_I, [_P]),
    "rd_kafka_event_error_string": (_S, [_P]),
    "rd_kafka_event_message_count": (_N, [_P]),
    "rd_kafka_event_message_next": (_P, [_P]),
    "rd_kafka_event_destroy": (None, [_P]),
    "rd_kafka_consume_start_queue": (_I, [_P, ctypes.c_int32, ctypes.c_int64, _P]),
    "rd_kafka_consume_stop": (_I, [_P, ctypes.c_int32]),
    "rd_kafka_consume_batch_queue": (ctypes.c_ssize_t, [_P, _I, _P, _N]),
    "rd_kafka_message_destroy": (None, [_P]),
    "rd_kafka_last_error": (_I, []),
}


def require_client() -> None:
    """Invalid if there is no confluent-kafka."""
    try:
        import confluent_kafka  # noqa: F401
    except ImportError:
        raise Invalid(f"the benchmarks need a Kafka client: {install_hint('demo')}") from None


@cache
def library() -> Any:
    """The librdkafka inside confluent-kafka's wheel, or the system's if confluent-kafka was built from source."""
    require_client()
    import confluent_kafka

    package = Path(confluent_kafka.__file__).parent
    inside = glob.glob(f"{package.parent}/confluent_kafka.libs/librdkafka*.so*")
    path = inside[0] if inside else ctypes.util.find_library("rdkafka")
    if path is None:
        raise Invalid(f"no librdkafka: {install_hint('demo')} brings one with confluent-kafka")
    found = ctypes.CDLL(path)
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    return found


class _Client:
    """A producer or consumer of one topic. Use it as a context."""

    def __init__(self, kind: int, topic: str, settings: Settings) -> None:
        self._lib = library()
        self.statistics: dict[str, Any] = {}
        conf = self._lib.rd_kafka_conf_new()
        self._lib.rd_kafka_conf_set_events(conf, _EVENT_DR | _EVENT_ERROR | _EVENT_STATS)
        error = ctypes.create_string_buffer(_ERROR_BYTES)
        for key, value in {"log_level": 0, "statistics.interval.ms": STATISTICS_MS, **settings}.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            if self._lib.rd_kafka_conf_set(conf, key.encode(), text.encode(), error, _ERROR_BYTES) != _CONF_OK:
                self._lib.rd_kafka_conf_destroy(conf)
                raise Invalid(f"librdkafka: {error.value.decode()}")
        self._client = self._lib.rd_kafka_new(kind, conf, error, _ERROR_BYTES)  # conf is its own from here on
        if not self._client:
            self._lib.rd_kafka_conf_destroy(conf)
            raise Invalid(f"librdkafka: {error.value.decode()}")
        self._topic = self._lib.rd_kafka_topic_new(self._client, topic.encode(), None)
        self._events = self._lib.rd_kafka_queue_get_main(self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._lib.rd_kafka_queue_destroy(self._events)
        self._lib.rd_kafka_topic_destroy(self._topic)
        self._lib.rd_kafka_destroy(self._client)

    def poll(self, timeout_ms: int) -> None:
        """Take events until none is left, waiting so long for the first. Unavailable: a record was refused, or no
        broker answers."""
        while event := self._lib.rd_kafka_queue_poll(self._events, timeout_ms):
            timeout_ms = 0
            try:
                self._take(event)
            finally:
                self._lib.rd_kafka_event_destroy(event)

    def _take(self, event: int) -> None:
        kind = self._lib.rd_kafka_event_type(event)
        if kind == _EVENT_STATS:
            self.statistics = json.loads(self._lib.rd_kafka_event_stats(event))
        elif kind == _EVENT_DR:  # with delivery.report.only.error
            count = self._lib.rd_kafka_event_message_count(event)
            message = _Message.from_address(self._lib.rd_kafka_event_message_next(event))
            raise Unavailable(f"{count} records were not acknowledged: {self._text(message.err)}")
        elif kind == _EVENT_ERROR and self._lib.rd_kafka_event_error(event) == _ALL_BROKERS_DOWN:
            raise Unavailable(f"no broker answers: {self._lib.rd_kafka_event_error_string(event).decode()}")

    def _text(self, code: int) -> str:
        text: bytes = self._lib.rd_kafka_err2str(code)
        return text.decode()

    def requests_of(self, api: str) -> int:
        """How many such requests all brokers were sent, as of the last statistics."""
        return sum(broker.get("req", {}).get(api, 0) for broker in self.statistics.get("brokers", {}).values())


class NativeProducer(_Client):
    """The values are sent in a ring, without keys, over all partitions as librdkafka likes."""

    def __init__(self, topic: str, values: Sequence[bytes], settings: Settings) -> None:
        super().__init__(_PRODUCER, topic, {**settings, "delivery.report.only.error": True})
        # Neither copied nor freed by librdkafka: they live as long as this object, which purges before it goes.
        self._buffers = [ctypes.create_string_buffer(value, max(1, len(value))) for value in values]
        self._messages = (_Message * BATCH_RECORDS)()
        for at, message in enumerate(self._messages):
            buffer, value = self._buffers[at % len(values)], values[at % len(values)]
            message.payload, message.len = ctypes.addressof(buffer), len(value)

    def produce(self, records: int) -> int:
        """Hand over up to so many records in one call; how many the client's queue took."""
        count = min(records, BATCH_RECORDS)
        taken: int = self._lib.rd_kafka_produce_batch(self._topic, -1, 0, self._messages, count)
        return taken

    @property
    def waiting(self) -> int:
        """Records that are not acknowledged."""
        queued: int = self._lib.rd_kafka_outq_len(self._client)
        return queued

    def flush(self, timeout_ms: int) -> bool:
        """Send what waits, without lingering; whether all of it is acknowledged."""
        done: bool = self._lib.rd_kafka_flush(self._client, timeout_ms) == 0
        self.poll(0)
        return done

    def close(self) -> None:
        self._lib.rd_kafka_purge(self._client, _PURGE_ALL)
        super().close()


class NativeConsumer(_Client):
    """Reads the partitions from their starts, without a group."""

    def __init__(self, topic: str, partitions: int, settings: Settings) -> None:
        # By default it stops fetching for a second when 100,000 records wait.
        defaults = {"queued.min.messages": 1_000_000, "fetch.queue.backoff.ms": 5, "fetch.error.backoff.ms": 50}
        super().__init__(_CONSUMER, topic, {**defaults, **settings})
        self._queue = self._lib.rd_kafka_queue_new(self._client)
        self._partitions = range(partitions)
        self._messages = (ctypes.c_size_t * BATCH_RECORDS)()  # addresses
        for partition in self._partitions:
            if self._lib.rd_kafka_consume_start_queue(self._topic, partition, _OFFSET_BEGINNING, self._queue):
                raise Invalid(f"{topic}-{partition}: {self._text(self._lib.rd_kafka_last_error())}")

    def consume(self, timeout_ms: int) -> int:
        """How many records came; what they hold is dropped."""
        count: int = self._lib.rd_kafka_consume_batch_queue(self._queue, timeout_ms, self._messages, BATCH_RECORDS)
        if count < 0:
            raise Unavailable(f"cannot consume: {self._text(self._lib.rd_kafka_last_error())}")
        destroy, error_of = self._lib.rd_kafka_message_destroy, ctypes.c_int.from_address
        failed = 0
        for message in self._messages[:count]:
            failed = failed or error_of(message).value  # `err` is the first field
            destroy(message)
        if failed:
            raise Unavailable(f"cannot consume: {self._text(failed)}")
        return count

    def close(self) -> None:
        for partition in self._partitions:
            self._lib.rd_kafka_consume_stop(self._topic, partition)
        self._lib.rd_kafka_queue_destroy(self._queue)
        super().close()

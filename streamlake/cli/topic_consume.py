"""`streamlake topic consume NAME`: the records of a topic on stdout, in the form that --format says.

No consumer group, nothing is committed: to look again is to see the same. Aborted transactions are left out.
"""

import asyncio
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from streamlake.cli.addresses import DEFAULT_BOOTSTRAP, Bootstrap
from streamlake.cli.console import Usage, note
from streamlake.cli.kafka import Cluster, ask, check
from streamlake.cli.record_format import FIELDS, MODIFIERS, Row, compile_format
from streamlake.core.clock import SystemClock
from streamlake.core.errors import Invalid, Unavailable
from streamlake.peers.kafka import KafkaPeer
from streamlake.peers.offsets import EARLIEST, LATEST, READ_COMMITTED
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic, PartitionData

FETCH_VERSION = 12  # the newest that names topics by name
WAIT_MS = 500
PARTITION_BYTES = 1 << 20
ANSWER_BYTES = 16 << 20
DECOMPRESSED_BYTES_MAX = 256 << 20  # of what one answer has of a partition
SILENCE_S = 30.0  # that records which are there may take to come
PAUSE_S = 0.2
INT64_MAX = 2**63 - 1
UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
# A leader will be found soon.
_NOT_YET = frozenset({
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.LEADER_NOT_AVAILABLE, ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.FENCED_LEADER_EPOCH, ErrorCode.UNKNOWN_LEADER_EPOCH, ErrorCode.REPLICA_NOT_AVAILABLE,
})  # fmt: skip

Places = dict[int, int]  # partition → offset


def consume(
    name: Annotated[str, typer.Argument(help="The topic's name.")],
    offset: Annotated[
        str,
        typer.Option(
            "--offset",
            "-o",
            help="Where to begin: start, end, an offset, -N for the last N of each partition, or @TIME: "
            "2026-01-31, 2026-01-31T12:00Z, ms since 1970, or @-10m for ten minutes ago (s, m, h, d).",
        ),
    ] = "start",
    number: Annotated[int | None, typer.Option("--num", "-n", help="End after so many records.", min=0)] = None,
    format: Annotated[
        str,
        typer.Option("--format", "-f", help=rf"How to print a record: {FIELDS}; after %k or %v {MODIFIERS}; \n, \t."),
    ] = r"%v\n",
    partition: Annotated[
        list[int] | None, typer.Option("--partition", "-p", help="Only this one; any number of times.")
    ] = None,
    follow: Annotated[
        bool | None,
        typer.Option("--follow/--no-follow", help="At the end wait for more. By default only with --offset end."),
    ] = None,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> None:
    """Print records and end where the topic ends now.

    Keys and values are printed as text. What was written with a schema (Avro) is not decoded: see `streamlake sql`.
    """
    render = compile_format(format)
    begin = read_offset(offset, SystemClock().now_ms())
    follow = offset == "end" if follow is None else follow
    if number == 0:
        return

    async def run(cluster: Cluster) -> None:
        reader = _Reader(cluster, name, await _partitions(cluster, name, partition))
        places, ends = await _begin(cluster, name, reader.partitions, begin)
        await reader.read(places, None if follow else ends, _Printer(render, number).print)

    ask(bootstrap, run)


Begin = Callable[[int, int], int]  # (log start, end) → offset


class AtTime(int):
    """Milliseconds since 1970: brokers know which offset that is."""


def read_offset(text: str, now_ms: int) -> Begin | AtTime:
    if text == "start":
        return lambda start, end: start
    if text == "end":
        return lambda start, end: end
    if re.fullmatch(r"\d{1,18}", text):
        return lambda start, end: max(start, int(text))
    if re.fullmatch(r"-\d{1,18}", text):
        return lambda start, end: max(start, end + int(text))
    if text.startswith("@"):
        return AtTime(_time_ms(text[1:], now_ms))
    raise Usage(f"--offset must be start, end, an offset, -N or @TIME, not {text!r}")


def _time_ms(text: str, now_ms: int) -> int:
    if ago := re.fullmatch(r"-(\d{1,9})([smhd])", text):
        return max(0, now_ms - int(ago[1]) * UNIT_MS[ago[2]])
    if re.fullmatch(r"\d{9,15}", text):  # up to ten digits are seconds, until the year 2286
        return int(text) * (1000 if len(text) <= 10 else 1)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise Usage(
            f"--offset @{text}: give a date (2026-01-31), a time (2026-01-31T12:00Z; without a zone it is UTC), "
            "ms since 1970, or how long ago (@-10m)"
        ) from None
    return max(0, int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000))


async def _partitions(cluster: Cluster, topic: str, wanted: Sequence[int] | None) -> list[int]:
    there = sorted(await cluster.leaders(topic))
    if missing := sorted(set(wanted or ()) - set(there)):
        raise Invalid(f"topic {topic} has no partition {missing[0]}: it has 0 to {len(there) - 1}")
    return sorted(set(wanted)) if wanted else there


async def _begin(cluster: Cluster, topic: str, partitions: list[int], begin: Begin | AtTime) -> tuple[Places, Places]:
    """Where to begin in each partition, and where each ends now."""
    starts = await cluster.offsets(topic, partitions, EARLIEST)
    ends = await cluster.offsets(topic, partitions, LATEST)
    if isinstance(begin, AtTime):
        found = await cluster.offsets(topic, partitions, begin)
        return {p: ends[p] if found[p] < 0 else found[p] for p in partitions}, ends
    places = {p: begin(starts[p], ends[p]) for p in partitions}
    if all(places[p] > ends[p] for p in partitions):
        held = "; ".join(f"partition {p} holds {starts[p]} to {ends[p]}" for p in partitions[:10])
        raise Invalid(f"topic {topic} has no such offset yet: {held}")
    return {p: min(places[p], ends[p]) for p in partitions}, ends


class _Printer:
    def __init__(self, render: Callable[[Row], bytes], number: int | None) -> None:
        self._render = render
        self._left = number

    def print(self, rows: Iterator[Row]) -> bool:
        """False when there were enough."""
        stdout = sys.stdout.buffer
        try:
            for row in rows:
                stdout.write(self._render(row))
                if self._left is not None:
                    self._left -= 1
                    if self._left == 0:
                        return False
        finally:
            stdout.flush()
        return True


class _Reader:
    """Fetches from all leaders at once, round after round."""

    def __init__(self, cluster: Cluster, topic: str, partitions: list[int]) -> None:
        self.partitions = partitions
        self._cluster = cluster
        self._topic = topic
        self._leaders: dict[int, KafkaPeer | None] = {}

    async def read(self, places: Places, ends: Places | None, take: Callable[[Iterator[Row]], bool]) -> None:
        """From `places` to `ends`, or for ever; until `take` has had enough."""
        loop = asyncio.get_running_loop()
        moved_at = loop.time()
        while True:
            left = [p for p in self.partitions if ends is None or places[p] < ends[p]]
            if not left:
                return
            before = dict(places)
            for data in await self._fetch(left, places):
                partition = data.partition_index
                end = INT64_MAX if ends is None else ends[partition]
                rows, places[partition] = self._rows(data, places[partition])
                if not take(row for row in rows if row["offset"] < end):
                    return
            if places != before:
                moved_at = loop.time()
            elif ends is not None and loop.time() - moved_at > SILENCE_S:
                raise Unavailable(
                    f"topic {self._topic}: no record of partition {left[0]} came for {SILENCE_S:g} s, though it has "
                    f"{ends[left[0]] - places[left[0]]} more: is its store there?"
                )

    async def _fetch(self, partitions: list[int], places: Places) -> list[PartitionData]:
        if any(self._leaders.get(p) is None for p in partitions):
            self._leaders = await self._cluster.leaders(self._topic)
        peers = {
            peer: [p for p in partitions if self._leaders.get(p) is peer] for peer in self._leaders.values() if peer
        }
        answers = await asyncio.gather(
            *(peer.call(ApiKey.FETCH, self._request(own, places), FETCH_VERSION) for peer, own in peers.items() if own)
        )
        for answer in answers:
            check(f"topic {self._topic}", answer.error_code)
        found = [p for answer in answers for t in answer.responses for p in t.partitions]
        good = [data for data in found if not await self._is_moving(data, places)]
        if not good:
            await asyncio.sleep(PAUSE_S)
        return good

    def _request(self, partitions: list[int], places: Places) -> FetchRequest:
        asked = tuple(
            FetchPartition(partition=p, fetch_offset=places[p], partition_max_bytes=PARTITION_BYTES) for p in partitions
        )
        return FetchRequest(
            max_wait_ms=WAIT_MS,
            min_bytes=1,
            max_bytes=ANSWER_BYTES,
            isolation_level=READ_COMMITTED,
            topics=(FetchTopic(topic=self._topic, partitions=asked),),
        )

    async def _is_moving(self, data: PartitionData, places: Places) -> bool:
        """Whether there is nothing to be had of the partition for now; an error that will stay is raised."""
        partition, code = data.partition_index, data.error_code
        if code in _NOT_YET:
            self._leaders[partition] = None
            return True
        if code == ErrorCode.OFFSET_OUT_OF_RANGE:
            (start,) = (await self._cluster.offsets(self._topic, [partition], EARLIEST)).values()
            if start <= places[partition]:
                raise Invalid(f"topic {self._topic}: partition {partition} ends before {places[partition]} now")
            note(f"partition {partition}: retention took the records {places[partition]} to {start - 1}")
            places[partition] = start
            return True
        check(f"topic {self._topic}, partition {partition}", code)
        return False

    def _rows(self, data: PartitionData, place: int) -> tuple[Iterator[Row], int]:
        """The records of an answer from `place` on, and the place after them."""
        from streamlake.record.arrow import decode_fetched  # pyarrow takes a while to import

        aborted = tuple((a.producer_id, a.first_offset) for a in data.aborted_transactions or ())
        decoded = decode_fetched(data.records or b"", place, aborted, DECOMPRESSED_BYTES_MAX)
        for bad in decoded.bad_batches:
            note(
                f"partition {data.partition_index}: the records {bad.base_offset} to {bad.last_offset} cannot be read: "
                f"{bad.error}"
            )
        return self._dicts(data.partition_index, decoded.table), decoded.next_offset

    def _dicts(self, partition: int, table: Any) -> Iterator[Row]:
        for batch in table.to_batches(max_chunksize=1000):
            for row in batch.to_pylist():
                yield {**row, "topic": self._topic, "partition": partition}

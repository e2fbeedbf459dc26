"""What a partition knows of transactions that it asks about, between the question and the first batch.

A guard is taken before the coordinator is asked, and confirmed by the answer OPEN. Any marker of the producer, and any
newer epoch, breaks it: the answer may be older than that. So a batch that comes late, after its transaction was ended,
never opens a transaction that nobody ends (KIP-890).
"""

GUARDS_MAX = 1000  # of a partition; beyond, the oldest is broken: its producer is asked about again


class Guard:
    __slots__ = ("epoch", "lowest_sequence", "number", "producer_id")

    def __init__(self, producer_id: int, epoch: int, sequence: int) -> None:
        self.producer_id = producer_id
        self.epoch = epoch
        self.lowest_sequence = sequence  # of the batches that came: a later one must not be a new producer's first
        self.number: int | None = None  # of the transaction, once it is known to be open


class Guards:
    def __init__(self) -> None:
        self._guards: dict[int, Guard] = {}  # by producer id, the oldest first

    def take(self, producer_id: int, epoch: int, sequence: int) -> Guard:
        """Before the coordinator is asked. That of an older epoch is broken."""
        found = self._guards.get(producer_id)
        if found is None or found.epoch < epoch:
            self._guards.pop(producer_id, None)
            if len(self._guards) >= GUARDS_MAX:
                del self._guards[next(iter(self._guards))]
            found = self._guards[producer_id] = Guard(producer_id, epoch, sequence)
        elif found.epoch == epoch:
            found.lowest_sequence = min(found.lowest_sequence, sequence)
        else:
            return Guard(producer_id, epoch, sequence)  # of an older epoch: broken from the start
        return found

    def confirm(self, guard: Guard, number: int) -> None:
        """The transaction is open and includes the partition, durably. Nothing, if the guard was broken meanwhile."""
        if self._guards.get(guard.producer_id) is guard:
            guard.number = number

    def confirmed(self, producer_id: int, epoch: int) -> Guard | None:
        found = self._guards.get(producer_id)
        return found if found is not None and found.epoch == epoch and found.number is not None else None

    def drop(self, producer_id: int) -> None:
        """Break what there is of this producer."""
        self._guards.pop(producer_id, None)

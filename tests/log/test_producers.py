import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.log.errors import InvalidProducerEpoch, OutOfOrderSequence
from streamlake.log.producers import SEQUENCES, ProducedBatch, Producers
from streamlake.record.batch import BatchHeader


def header(sequence: int, count: int = 1, *, producer: int = 1, epoch: int = 0) -> BatchHeader:
    return BatchHeader(0, 0, 0, 2, 0, 0, count - 1, 0, 0, producer, epoch, sequence, count)


def send(producers: Producers, offset: int, *args, now_ms: int = 0, **kwargs):
    """As a partition does: check, then add. The earlier batch if it was a duplicate."""
    sent = header(*args, **kwargs)
    earlier = producers.check(sent.producer_id, sent.producer_epoch, sent.base_sequence, sent.count)
    if earlier is None:
        batch = ProducedBatch(sent.base_sequence, sent.count, offset, 1000)
        producers.apply(sent.producer_id, sent.producer_epoch, (batch,), now_ms)
    return earlier


def test_sequences_follow_each_other():
    producers = Producers(10)
    assert send(producers, 0, 0, 10) is None
    assert send(producers, 10, 10, 5) is None
    with pytest.raises(OutOfOrderSequence, match="expected 15"):
        send(producers, 15, 16)
    with pytest.raises(OutOfOrderSequence):
        send(producers, 15, 14)


def test_the_last_five_batches_are_known_again():
    producers = Producers(10)
    for i in range(7):
        send(producers, 100 + 10 * i, 10 * i, 10)
    for i in range(2, 7):
        assert send(producers, 999, 10 * i, 10).base_offset == 100 + 10 * i
    for i in range(2):
        with pytest.raises(OutOfOrderSequence):
            send(producers, 999, 10 * i, 10)
    with pytest.raises(OutOfOrderSequence):
        send(producers, 999, 60, 9)  # same start, another length: not the same batch


def test_epochs():
    producers = Producers(10)
    send(producers, 0, 0, 3, epoch=4)
    with pytest.raises(InvalidProducerEpoch, match="epoch 3"):
        send(producers, 3, 3, epoch=3)
    with pytest.raises(InvalidProducerEpoch):
        send(producers, 3, 0, 3, epoch=3)  # not a duplicate either
    with pytest.raises(OutOfOrderSequence, match="expected 0"):
        send(producers, 3, 3, epoch=5)
    assert send(producers, 3, 0, 3, epoch=5) is None  # and not taken for epoch 4's
    assert send(producers, 6, 0, 3, epoch=5).base_offset == 3


def test_unknown_producer_may_begin_anywhere():
    producers = Producers(10)
    assert send(producers, 0, 500, epoch=7) is None
    with pytest.raises(OutOfOrderSequence):
        send(producers, 1, 502, epoch=7)


def test_sequences_wrap():
    producers = Producers(10)
    send(producers, 0, SEQUENCES - 3, 5)  # ... 2**31 - 1, 0, 1
    assert send(producers, 5, 2) is None
    assert send(producers, 6, SEQUENCES - 3, 5).base_offset == 0
    send(producers, 6, SEQUENCES - 1, producer=2)
    assert send(producers, 7, 0, producer=2) is None


def test_expiry_and_bound():
    producers = Producers(2)
    send(producers, 0, 0, producer=1, now_ms=100)
    send(producers, 1, 0, producer=2, now_ms=200)
    send(producers, 2, 1, producer=1, now_ms=300)
    send(producers, 3, 0, producer=3, now_ms=400)
    assert [i for i, _ in producers.items()] == [1, 3]  # 2 was silent longest
    assert producers.expire(800, 500) == 1
    assert [i for i, _ in producers.items()] == [3]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 4)), max_size=60))
def test_no_batch_is_appended_twice_and_none_is_skipped(steps):
    """Producers with up to five requests in flight that send any of their last five again, at any time."""
    producers, sent, log = Producers(10), {1: 0, 2: 0, 3: 0}, []
    for producer, back in steps:
        sequence = max(sent[producer] - back, 0)
        if back and sequence < sent[producer]:
            earlier = send(producers, len(log), sequence, producer=producer)
            assert log[earlier.base_offset] == (producer, sequence)
        else:
            assert send(producers, len(log), sent[producer], producer=producer) is None
            log.append((producer, sent[producer]))
            sent[producer] += 1
    for producer in sent:
        assert [s for p, s in log if p == producer] == list(range(sent[producer]))

import pytest

from streamlake.log.epochs import end_of_epoch, epoch_of

EPOCHS = ((3, 10), (5, 20), (6, 20), (9, 50))


@pytest.mark.parametrize(
    ("requested", "answer"),
    [
        (-1, (-1, -1)),
        (0, (0, 10)),  # before the known ones: its data is gone, the log begins at 10
        (3, (3, 20)),
        (4, (3, 20)),
        (5, (5, 20)),  # an epoch in which nothing was written
        (6, (6, 50)),
        (8, (6, 50)),
        (9, (9, 70)),
        (10, (-1, -1)),
    ],
)
def test_end_of_epoch(requested, answer):
    assert end_of_epoch(EPOCHS, requested, 70) == answer


@pytest.mark.parametrize(
    ("offset", "epoch"), [(0, -1), (9, -1), (10, 3), (19, 3), (20, 6), (49, 6), (50, 9), (1000, 9)]
)
def test_epoch_of(offset, epoch):
    assert epoch_of(EPOCHS, offset) == epoch


def test_no_epochs():
    assert end_of_epoch((), 0, 10) == (-1, -1)
    assert epoch_of((), 0) == -1

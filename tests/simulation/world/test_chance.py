from itertools import pairwise
from random import Random

from simulation.world.chance import Latency, Windows


def test_latency_is_mostly_quick_and_sometimes_very_slow() -> None:
    random = Random(1)
    drawn = sorted(Latency(0.01, 0.05, 10).draw(random) for _ in range(10_000))
    assert drawn[0] >= 0.005
    assert drawn[9000] <= 0.015
    assert 1 < drawn[-1] <= 10.01
    assert all(0.5 <= Latency(1).draw(random) <= 1.5 for _ in range(100))


def test_windows_come_and_go() -> None:
    windows = Windows(Random(1), gap_s=100, length_s=20)
    seen = [windows.active(t / 10) for t in range(1_000_000)]
    changes = sum(a != b for a, b in pairwise(seen))
    assert 1000 < changes < 3000
    assert 0.05 < sum(seen) / len(seen) < 0.15
    never = Windows(Random(1), gap_s=0, length_s=20)
    assert not any(never.active(t) for t in range(1000))


def test_a_window_by_hand() -> None:
    windows = Windows(Random(1), gap_s=0, length_s=0)
    windows.open(10, 5)
    assert [windows.active(t) for t in (10, 14.9, 15)] == [True, True, False]
    windows.open(20, 5)
    windows.close()
    assert not windows.active(21)

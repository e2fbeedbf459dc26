from streamlake.coordinator.classic.join_phase import NEVER_MS, JoinPhase


def test_a_rebalance_lasts_as_long_as_its_timeout():
    phase = JoinPhase(500)
    phase.begin(first=False, timeout_ms=3_000, now_ms=0)
    assert (phase.initial, phase.deadline_ms) == (False, 3_000)
    assert not phase.over(2_999)
    assert phase.over(3_000)
    phase.prolong(3_000, 3_000)
    assert not phase.over(5_999)
    phase.end()
    assert phase.deadline_ms == NEVER_MS
    assert not phase.over(10**12)


def test_an_initial_delay_starts_again_for_newcomers():
    phase = JoinPhase(500)
    phase.begin(first=True, timeout_ms=1_200, now_ms=0)
    assert (phase.initial, phase.deadline_ms) == (True, 500)
    phase.newcomer()
    assert not phase.over(500)
    assert phase.deadline_ms == 1_000
    phase.newcomer()
    assert not phase.over(1_000)
    assert phase.deadline_ms == 1_200, "never longer than the timeout"
    phase.newcomer()
    assert phase.over(1_200)
    assert not phase.initial


def test_without_newcomers_the_initial_delay_ends():
    phase = JoinPhase(500)
    phase.begin(first=True, timeout_ms=10_000, now_ms=0)
    assert phase.over(500)


def test_no_delay_is_no_initial_phase():
    phase = JoinPhase(0)
    phase.begin(first=True, timeout_ms=10_000, now_ms=0)
    assert (phase.initial, phase.deadline_ms) == (False, 10_000)

"""Ctrl-C during work that does not look for it."""

import os
import signal
import threading

import pytest
from support.wait import DEADLINE_S

from streamlake.cli.interruptible import interruptible


def test_gives_what_the_work_gives():
    assert interruptible(lambda: 42, pytest.fail) == 42
    with pytest.raises(ValueError, match="no luck"):
        interruptible(lambda: exec('raise ValueError("no luck")'), pytest.fail)


def test_an_interrupt_is_repeated_until_the_work_ends():
    stop, calls = threading.Event(), []

    def work():
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(DEADLINE_S)
        raise ValueError("what a library says of being interrupted")

    def interrupt():
        calls.append(1)
        if len(calls) == 3:  # the first ones were too early
            stop.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            interruptible(work, interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(calls) >= 3

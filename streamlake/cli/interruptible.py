"""Ctrl-C for work inside a library that does not look for it."""

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

LOOK_EVERY_S = 0.1

T = TypeVar("T")


def interruptible(work: Callable[[], T], interrupt: Callable[[], None]) -> T:
    """What `work` gives, in a thread. From Ctrl-C on `interrupt` is called until the work ends, as a call that comes
    before it has begun may be lost. Then KeyboardInterrupt is raised: nothing of the work goes on."""
    with _ctrl_c() as pressed, ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        while not future.done():
            wait([future], LOOK_EVERY_S)
            if pressed.is_set():
                interrupt()
    if pressed.is_set():
        raise KeyboardInterrupt
    return future.result()


@contextmanager
def _ctrl_c() -> Iterator[threading.Event]:
    """Set by Ctrl-C, which raises nothing meanwhile. Who ignores it goes on to ignore it."""
    pressed = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: pressed.set())
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)

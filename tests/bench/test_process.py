"""Loads in processes of their own: results, progress, errors, silence; and whose CPU time it is."""

import os
import socket
import time

import pytest
from support.wait import DEADLINE_S

from streamlake.bench.process import Child, broker_pid, cpu_s, in_child, listener_pid
from streamlake.core.errors import Invalid, Unavailable


def counts(n, tell):
    for done in range(n):
        tell(done)
    return n, os.getpid()


def refuses(tell):
    raise Invalid("give another")


def breaks(tell):
    raise ZeroDivisionError


def dies(tell):
    os._exit(7)


def sleeps(tell):
    time.sleep(3600)


def test_the_result_comes_from_another_process_and_progress_before_it():
    seen = []
    n, pid = in_child(counts, DEADLINE_S, seen.append, n=5)
    assert n == 5
    assert pid != os.getpid()
    assert seen == [0, 1, 2, 3, 4]


def test_errors_of_ours_stay_what_they_are_and_others_bring_their_traceback():
    with pytest.raises(Invalid, match="give another"):
        in_child(refuses, DEADLINE_S)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        in_child(breaks, DEADLINE_S)


def test_a_process_that_dies_and_one_that_is_silent():
    with pytest.raises(Unavailable, match="ended with 7"):
        in_child(dies, DEADLINE_S)
    with pytest.raises(Unavailable, match="no progress"):
        in_child(sleeps, 0.5)  # and it is stopped


def test_a_load_can_be_asked_whether_it_is_done():
    with Child(counts, n=1) as child:
        deadline = time.perf_counter() + DEADLINE_S
        while not child.is_done():
            assert time.perf_counter() < deadline
            time.sleep(0.01)
        assert child.result(0)[0] == 1


def test_cpu_time_grows():
    before = cpu_s(os.getpid())
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert cpu_s(os.getpid()) >= before + 0.05


def test_who_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listener_pid(port) == broker_pid(f"127.0.0.1:{port}") == broker_pid(f"localhost:{port}") == os.getpid()
        assert broker_pid(f"192.0.2.1:{port}") is None
    assert listener_pid(port) is None

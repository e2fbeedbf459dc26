"""The short fuzzing of every run; `make fuzz` is the long one. Inputs that once failed are replayed first."""

from pathlib import Path

import pytest
from fuzz.mutate import inputs
from fuzz.target import MIB, Target, TooLarge, TooSlow
from fuzz.targets import TARGETS, read, regressions
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("path", list(regressions()), ids=lambda path: path.stem)
def test_what_failed_once_does_not_again(path: Path) -> None:
    regression = read(path)
    regression.target.run(regression.data)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_what_they_claim(name: str) -> None:
    target = TARGETS[name]
    for data in (*target.inputs, b""):
        target.run(data)


@pytest.mark.parametrize("name", TARGETS)
def test_foreign_bytes(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=target.examples, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
    @given(inputs(target.inputs, target.dictionary))
    def run(data: bytes) -> None:
        target.run(data, trace=True)

    run()


# -- that the above can fail -------------------------------------------------------------------------------------------


def never_ends(_: bytes) -> None:
    while True:
        pass


def takes_too_much(data: bytes) -> None:
    bytearray(MIB * len(data))


def trusts_a_length(data: bytes) -> None:
    """A parser as one writes it on a Friday: a length, then so many bytes, then a checksum of one byte."""
    size = data[0]
    assert data[1 + size] == sum(data[1 : 1 + size]) % 256


def test_what_never_ends_is_a_failure() -> None:
    with pytest.raises(TooSlow):
        Target("loop", list, never_ends, cpu_s=0.05).run(b"x")


def test_memory_without_measure_is_a_failure() -> None:
    target = Target("bomb", list, takes_too_much, memory_bytes=MIB)
    target.run(b"", trace=True)
    with pytest.raises(TooLarge, match="4 bytes of input took"):
        target.run(b"xxxx", trace=True)


def test_a_parser_that_trusts_is_found_out() -> None:
    seed = bytes([3, 1, 2, 3, 6])

    @settings(max_examples=200, database=None, deadline=None, phases=[Phase.generate])
    @given(inputs([seed]))
    def run(data: bytes) -> None:
        Target("trusting", lambda: [seed], trusts_a_length).run(data)

    with pytest.raises((IndexError, AssertionError, BaseExceptionGroup)):
        run()


@given(st.data())
@settings(max_examples=50)
def test_an_undamaged_seed_is_among_the_inputs(data: st.DataObject) -> None:
    assert isinstance(data.draw(inputs([b"seed", b'{"a":1}'], (b"null",))), bytes)

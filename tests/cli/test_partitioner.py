"""Keys go where Java's producer sends them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2

from streamlake.cli import partitioner


@given(st.binary())
def test_as_another_client_of_the_same_rule(data):
    assert partitioner.murmur2(data) == murmur2(data) & 0xFFFFFFFF


@given(st.binary(min_size=1), st.integers(1, 50))
def test_partitions(key, partitions):
    assert partitioner.partition_of(key, partitions) == (murmur2(key) & 0x7FFFFFFF) % partitions


@pytest.mark.parametrize(("key", "hash"), [(b"21", -973932308), (b"foobar", -790332482), (b"abc", 479470107)])
def test_figures_of_kafkas_own_test(key, hash):
    assert partitioner.murmur2(key) == hash & 0xFFFFFFFF

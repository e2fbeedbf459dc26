from streamlake.core.ids import Ids


def test_a_seed_repeats_and_no_seed_does_not() -> None:
    one, same, other = Ids(7), Ids(7), Ids(8)
    drawn = [one.uuid(), one.int63()]
    assert drawn == [same.uuid(), same.int63()]
    assert drawn != [other.uuid(), other.int63()]
    assert Ids().uuid() != Ids().uuid()


def test_uuids_are_version_4_and_int63_is_positive() -> None:
    ids = Ids(1)
    assert {ids.uuid().version for _ in range(100)} == {4}
    assert all(0 < ids.int63() < 2**63 for _ in range(1000))
    ids.random.getrandbits = lambda bits: 0  # type: ignore[method-assign]
    assert ids.int63() == 1

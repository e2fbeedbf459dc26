import pytest

from streamlake.cluster.store.schemas import VersionRow
from streamlake.registry import errors, subjects
from streamlake.registry.errors import RegistryError


def rows(*deleted: bool) -> list[VersionRow]:
    return [VersionRow("s", n, n * 10, gone) for n, gone in enumerate(deleted, 1)]


def refused(code, work, *args):
    with pytest.raises(RegistryError) as raised:
        work(*args)
    assert raised.value.code == code


def test_versions():
    assert subjects.parse_version("latest") is subjects.parse_version("-1") is None
    assert subjects.parse_version("7") == 7
    for wrong in ["0", "-2", "x", "", "٣", "2147483648", "9" * 5_000]:
        refused(errors.INVALID_VERSION, subjects.parse_version, wrong)


def test_names():
    for name in ["a", "a/b c%", "x" * 1_024]:
        subjects.check_subject(name)
    for name in ["", "x" * 1_025, "a\nb"]:
        refused(errors.INVALID_SUBJECT, subjects.check_subject, name)


def test_find_version():
    some = rows(False, True, False, True)
    assert subjects.find_version("s", some, None).version == 3
    assert subjects.find_version("s", some, None, deleted=True).version == 4
    assert subjects.find_version("s", some, 1).version == 1
    refused(errors.VERSION_NOT_FOUND, subjects.find_version, "s", some, 2)
    assert subjects.find_version("s", some, 2, deleted=True).version == 2
    refused(errors.SUBJECT_NOT_FOUND, subjects.find_version, "s", [], 1)
    refused(errors.SUBJECT_NOT_FOUND, subjects.find_version, "s", rows(True), None)


def test_version_of_a_schema():
    twice = [*rows(False, True), VersionRow("s", 3, 10, False)]
    assert subjects.version_of(twice, 10).version == 3
    assert subjects.version_of(twice, 20) is None
    assert subjects.version_of(twice, 20, deleted=True).version == 2
    assert subjects.version_of(twice, None) is None


def test_soft_deleted_versions_keep_their_numbers():
    assert subjects.greatest_version("s", rows(False, True)) == 2
    assert subjects.greatest_version("s", []) == 0
    refused(errors.NOT_PERMITTED, subjects.greatest_version, "s", rows(*[False] * subjects.VERSIONS_MAX))


def test_deleting_a_subject():
    assert subjects.deletable_subject("s", rows(False, True, False), permanent=False) == [1, 3]
    assert subjects.deletable_subject("s", rows(True, True), permanent=True) == [1, 2]
    refused(errors.SUBJECT_NOT_FOUND, subjects.deletable_subject, "s", [], False)
    refused(errors.SUBJECT_NOT_FOUND, subjects.deletable_subject, "s", [], True)
    refused(errors.SUBJECT_SOFT_DELETED, subjects.deletable_subject, "s", rows(True), False)
    refused(errors.SUBJECT_NOT_SOFT_DELETED, subjects.deletable_subject, "s", rows(True, False), True)


def test_deleting_a_version():
    some = rows(False, True)
    assert subjects.deletable_version("s", some, 1, permanent=False) == 1
    assert subjects.deletable_version("s", some, None, permanent=False) == 1
    assert subjects.deletable_version("s", some, 2, permanent=True) == 2
    assert subjects.deletable_version("s", some, None, permanent=True) == 2
    refused(errors.VERSION_SOFT_DELETED, subjects.deletable_version, "s", some, 2, False)
    refused(errors.VERSION_NOT_SOFT_DELETED, subjects.deletable_version, "s", some, 1, True)
    refused(errors.VERSION_NOT_FOUND, subjects.deletable_version, "s", some, 3, True)

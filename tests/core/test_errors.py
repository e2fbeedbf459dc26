import inspect

from streamlake.core import errors


def test_every_kind_says_what_to_do_next_and_has_one_base() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert len(kinds) > 8
    for kind in kinds:
        assert issubclass(kind, errors.StreamLakeError)
        assert kind.__doc__, f"{kind.__name__} does not say what it means"
    families = {kind.__mro__[1] for kind in kinds if kind is not errors.StreamLakeError}
    assert families == {errors.StreamLakeError}, "kinds are flat: catching one never catches another"


def test_describe_is_one_short_line() -> None:
    assert errors.describe(OSError("a\n  b")) == "OSError: a b"
    assert errors.describe(KeyError()) == "KeyError: no message"
    assert len(errors.describe(ValueError("x" * 9999))) == errors.SHOWN_CHARS_MAX

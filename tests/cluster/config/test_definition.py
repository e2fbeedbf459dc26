import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.cluster.config.definition import (
    ConfigDef,
    ConfigDefs,
    ConfigSource,
    ConfigType,
    Layer,
    any_text,
    boolean,
    comma_list,
    integer,
    number,
    one_of,
)
from streamlake.core.errors import Invalid

SIZE = ConfigDef("size", ConfigType.INT, "5", integer(1, 9), "A size.", "log.size", ("old.size",))
NAME = ConfigDef("name", ConfigType.STRING, "", any_text, "A name.")
DEFS = ConfigDefs("test", (SIZE, NAME))


def test_keys_have_one_canonical_name() -> None:
    assert DEFS.canonical("old.size") == "size"
    assert DEFS["old.size"] is SIZE
    assert DEFS.check({"old.size": "3", "name": "x"}) == {"size": "3", "name": "x"}
    assert DEFS.check({"old.size": "3", "size": "3"}) == {"size": "3"}
    with pytest.raises(Invalid, match="size is given twice, as '3' and as '4'"):
        DEFS.check({"size": "3", "old.size": "4"})
    assert [d.name for d in DEFS] == ["size", "name"]


def test_unknown_keys_name_the_nearest() -> None:
    with pytest.raises(Invalid, match="'siez' is not a test config; did you mean size"):
        DEFS.check({"siez": "1"})
    with pytest.raises(Invalid, match=r"'zzzzzzzz' is not a test config$"):
        DEFS.canonical("zzzzzzzz")
    with pytest.raises(Invalid):
        DEFS.canonical("x" * 100_000)


def test_wrong_values_name_key_value_and_rule() -> None:
    with pytest.raises(Invalid, match="size = '10': must be a whole number from 1 to 9"):
        DEFS.check({"size": "10"})


def test_the_strongest_layer_wins_and_all_are_shown() -> None:
    topic = Layer(ConfigSource.DYNAMIC_TOPIC, {"size": "1", "log.size": "9"})
    broker = Layer(ConfigSource.DYNAMIC_BROKER, {"log.size": "2", "size": "9"})
    static = Layer(ConfigSource.STATIC_BROKER, {"log.size": "3"})
    entry = DEFS.describe("size", [topic, broker, static])
    assert (entry.value, entry.source, entry.definition) == ("1", ConfigSource.DYNAMIC_TOPIC, SIZE)
    assert entry.synonyms == (
        ("size", "1", ConfigSource.DYNAMIC_TOPIC),
        ("log.size", "2", ConfigSource.DYNAMIC_BROKER),
        ("log.size", "3", ConfigSource.STATIC_BROKER),
        ("log.size", "5", ConfigSource.DEFAULT),
    )
    assert DEFS.effective([broker, static]) == {"size": "2", "name": ""}
    assert DEFS.effective([]) == {"size": "5", "name": ""}


@pytest.mark.parametrize(
    ("parser", "good", "bad"),
    [
        (boolean, {"true": True, "FALSE": False, " True ": True}, ["", "1", "yes"]),
        (integer(-1, 10), {"-1": -1, "10": 10, " 7 ": 7}, ["", "-2", "11", "1.5", "x", "9" * 10_000]),
        (number(0, 1), {"0.5": 0.5, "1": 1.0, "1e-3": 0.001}, ["", "x", "-0.1", "1.1", "nan", "inf"]),
        (one_of("a", "b"), {"a": "a"}, ["", "c", "A"]),
        (comma_list, {"": (), "a, b,,c": ("a", "b", "c")}, []),
        (any_text, {"": "", "x": "x"}, ["x" * 40_000]),
    ],
)
def test_parsers(parser, good, bad) -> None:
    for text, value in good.items():
        assert parser(text) == value
    for text in bad:
        with pytest.raises(ValueError, match="must"):
            parser(text)


@given(st.text(max_size=60))
def test_parsers_raise_nothing_but_value_error(text: str) -> None:
    for parser in (boolean, integer(0, 9), number(0, 1), one_of("a"), comma_list, any_text):
        try:
            parser(text)
        except ValueError:
            pass

"""Tokens and guesses."""

import pytest
from support.wait import until

from streamlake.http import tokens as module
from streamlake.http.tokens import Tokens

TOKEN, OTHER = "t0ken-of-sixteen-letters", "an0ther-of-the-same-kind"
WRONG = ("", "nonsense", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper(), "\xe4\xf6\u20ac")


async def test_any_of_them_is_known_and_nothing_else() -> None:
    tokens = Tokens([TOKEN, OTHER])
    assert tokens.are_needed and not Tokens([]).are_needed
    assert [tokens.check(given, "a") for given in (TOKEN, OTHER)] == ["known"] * 2
    assert [tokens.check(given, "a") for given in WRONG] == ["unknown"] * len(WRONG)


async def test_wrong_ones_cost_an_address_its_places_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRONG_KEPT_S", 0.05)
    tokens = Tokens([TOKEN])
    for n in range(module.WRONG_MAX):
        assert tokens.check(f"guess-{n}", "a") == "unknown"
    assert tokens.check(TOKEN, "a") == "too many", "else the answer to the right one could be waited for"
    assert tokens.check(TOKEN, "b") == "known", "the others have done nothing"
    await until(lambda: tokens.check(TOKEN, "a") == "known")
    await until(lambda: not tokens._wrong)  # nothing is kept of who has stopped


async def test_a_client_with_an_old_token_locks_nobody_out() -> None:
    tokens = Tokens([TOKEN])
    for _ in range(10 * module.WRONG_MAX):
        assert tokens.check("yesterday's", "proxy") == "unknown"
    assert tokens.check(TOKEN, "proxy") == "known"

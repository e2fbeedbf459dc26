from streamlake.core.account import Account


def test_an_account_counts_beyond_its_limit_and_is_full_until_bytes_come_free() -> None:
    account = Account(100)
    account.count(99)
    assert (account.is_full, account.free_bytes) == (False, 1)
    account.count(500)
    assert (account.is_full, account.free_bytes, account.held_bytes) == (True, 0, 599)
    account.count(-500)
    assert not account.is_full


def test_holders_that_wait_are_called_once_when_a_quarter_is_free() -> None:
    account, called = Account(100), list[str]()
    account.count(120)

    def first() -> None:
        called.append("first")

    def second() -> None:
        called.append("second")
        account.when_free(second)  # it found the account full again

    for _ in range(2):
        account.when_free(first)
    account.when_free(second)
    account.count(-44)
    assert called == [], "76 of 100 are held"
    account.count(-1)
    assert called == ["first", "second"]
    account.count(-1)
    assert called == ["first", "second", "second"]
    account.forget(second)
    account.count(-1)
    assert len(called) == 3

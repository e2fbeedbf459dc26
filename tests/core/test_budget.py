import asyncio

import pytest

from streamlake.core.budget import Budget
from streamlake.core.errors import Invalid, Unavailable


def test_accounts_add_up() -> None:
    budget = Budget(100)
    assert budget.try_take("cache", 60)
    assert budget.try_take("replies", 40)
    assert not budget.try_take("replies", 1)
    assert (budget.used_bytes, budget.free_bytes, budget.accounts) == (100, 0, {"cache": 60, "replies": 40})
    budget.give("cache", 10)
    assert budget.try_take("replies", 10)
    with pytest.raises(AssertionError):
        budget.give("replies", 51)


async def test_waiters_are_served_in_order_and_none_is_overtaken() -> None:
    budget = Budget(100)
    assert budget.try_take("a", 90)
    order: list[str] = []

    async def take(name: str, size_bytes: int) -> None:
        await budget.take(name, size_bytes, timeout_s=60)
        order.append(name)

    large = asyncio.create_task(take("large", 50))
    await asyncio.sleep(0)
    small = asyncio.create_task(take("small", 5))
    await asyncio.sleep(0)
    assert not budget.try_take("sneaky", 1), "room for one more, but two wait"
    budget.give("a", 30)
    await asyncio.sleep(0)
    assert order == []
    budget.give("a", 20)
    await asyncio.gather(large, small)
    assert order == ["large", "small"]


async def test_too_much_is_invalid_and_too_late_is_unavailable() -> None:
    budget = Budget(10)
    with pytest.raises(Invalid, match=r"raise memory\.total_bytes"):
        await budget.take("a", 11, timeout_s=1)
    assert budget.try_take("a", 10)
    with pytest.raises(Unavailable):
        await budget.take("a", 1, timeout_s=0)
    assert budget.used_bytes == 10


def test_the_rest_is_all_that_is_free() -> None:
    budget = Budget(100)
    assert budget.try_take("cache", 60)
    assert budget.take_rest("connections") == 40
    assert (budget.free_bytes, budget.accounts["connections"]) == (0, 40)
    assert budget.take_rest("others") == 0

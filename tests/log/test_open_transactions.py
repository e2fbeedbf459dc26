import asyncio

from streamlake.log.open_transactions import UNKNOWN_NUMBER, OpenTransaction, OpenTransactions


async def test_the_lowest_first_offset_is_unstable_until_its_marker_is_durable():
    opened = OpenTransactions()
    assert opened.unstable_offset is None
    opened.begin(1, OpenTransaction(0, 10, 1))
    opened.begin(2, OpenTransaction(0, 20, 1))
    assert (opened.unstable_offset, len(opened), 1 in opened) == (10, 2, True)
    marker = asyncio.get_running_loop().create_future()
    assert opened.end(1, 31, marker).first_offset == 10
    assert (opened.unstable_offset, opened.ending(1)) == (10, marker), "the marker may still be lost"
    opened.durable(30)
    assert opened.unstable_offset == 10
    opened.durable(31)
    assert (opened.unstable_offset, opened.ending(1), 1 in opened) == (20, None, False)
    assert opened.stable_after(40) == 20
    opened.end(2, 41, None)
    assert (opened.unstable_offset, opened.stable_after(41)) == (None, 41)


async def test_a_later_one_whose_marker_is_not_durable_does_not_hide_an_earlier_one():
    opened = OpenTransactions()
    opened.begin(1, OpenTransaction(0, 10, 1))
    opened.begin(2, OpenTransaction(0, 20, 1))
    opened.end(2, 31, asyncio.get_running_loop().create_future())
    assert opened.unstable_offset == 10
    opened.end(1, 32, asyncio.get_running_loop().create_future())
    opened.durable(31)
    assert opened.unstable_offset == 10
    opened.durable(32)
    assert opened.unstable_offset is None


def test_a_number_is_told_once_and_to_the_transaction_that_was_meant():
    opened = OpenTransactions()
    opened.begin(1, OpenTransaction(3, 10, UNKNOWN_NUMBER))
    opened.number_told(1, 2, 7)
    opened.number_told(2, 3, 7)
    assert opened.get(1).number == UNKNOWN_NUMBER
    opened.number_told(1, 3, 7)
    opened.number_told(1, 3, 8)
    assert opened.get(1) == OpenTransaction(3, 10, 7)
    assert list(opened.items()) == [(1, OpenTransaction(3, 10, 7))]

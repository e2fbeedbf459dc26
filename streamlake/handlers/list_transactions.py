"""ListTransactions (66): the transactional ids that this broker coordinates. Clients ask all brokers.

Version notes: those that have been open for a while are selected from version 1 (KIP-994). Version 2 selects by a
regular expression, which is not there: one of a client could keep this broker busy for ever.
"""

from streamlake.coordinator.transaction import State, TxnError
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import txn_code
from streamlake.protocol.messages.list_transactions import (
    ListTransactionsRequest,
    ListTransactionsResponse,
    TransactionState,
)


async def handle(ctx: Context, exchange: Exchange) -> ListTransactionsResponse:
    request: ListTransactionsRequest = exchange.body
    names = {state.value for state in State}
    unknown = tuple(state for state in request.state_filters if state not in names)
    listed = await ctx.transactions.list()
    if isinstance(listed, TxnError):
        return ListTransactionsResponse(error_code=txn_code(listed), unknown_state_filters=unknown)
    if request.state_filters:
        listed = [each for each in listed if each.state.value in request.state_filters]
    if request.producer_id_filters:
        listed = [each for each in listed if each.producer_id in request.producer_id_filters]
    if request.duration_filter >= 0:
        until_ms = ctx.clock.now_ms() - request.duration_filter
        listed = [each for each in listed if 0 <= each.started_ms <= until_ms]
    return ListTransactionsResponse(
        unknown_state_filters=unknown,
        transaction_states=tuple(
            TransactionState(
                transactional_id=each.transactional_id,
                producer_id=each.producer_id,
                transaction_state=each.state.value,
            )
            for each in listed
        ),
    )

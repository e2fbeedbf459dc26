"""The list of APIs is one that clients and the documentation can rely on."""

from collections.abc import Callable

import pytest
from support.wire import Client

from streamlake.handlers import fetch, join_group, sync_group
from streamlake.handlers.apis import HANDLERS
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.requests import api


def test_every_api_once_and_in_order() -> None:
    keys = [h.api.key for h in HANDLERS]
    assert keys == sorted(set(keys))


def test_versions_are_ones_that_the_messages_know() -> None:
    for handler in HANDLERS:
        known = api(handler.api.key).versions
        assert handler.api.versions[0] == known[0] if handler.api.key != ApiKey.PRODUCE else True
        assert handler.api.versions[-1] in known
        assert handler.api.advertised_min <= handler.api.versions[0]


def test_only_waiting_for_others_is_abandoned_with_the_connection() -> None:
    """Anything else that a client has asked for is done, though it does not wait for the answer."""
    abandoned = {h.handle for h in HANDLERS if h.abandon}
    assert abandoned == {fetch.handle, join_group.handle, sync_group.handle}


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda h: h.api.name)
def test_every_version_of_an_empty_request_is_answered_or_refused_by_closing(
    connect: Callable[[], Client], handler: object
) -> None:
    """An answer that cannot be encoded would close the connection, and the server's log is checked at the end."""
    request = handler.api.request(**({"acks": 1} if handler.api.key == ApiKey.PRODUCE else {}))
    for version in handler.api.versions:
        answer = connect().ask(handler.api.key, version, request)
        assert type(answer) is handler.api.response

"""Calls of the catalog in the worker: before it is open, at the end, and when something fails."""

import asyncio
from typing import cast

import pytest
from support.wait import until

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.named import NamedCatalogs
from streamlake.core.errors import Unavailable
from streamlake.iceberg_rest.service import IcebergRest
from streamlake.iceberg_rest.warehouses import Target, Warehouses
from streamlake.table.task.control import CatalogAnswer, CatalogCall
from streamlake.worker import catalog_calls as module
from streamlake.worker.catalog_calls import CatalogCalls


class Service:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.opened.set()
        self.trouble: Exception | None = None
        self.go = asyncio.Event()
        self.names: list[str] = []
        self.error: Exception | None = None

    async def answer(self, call: CatalogCall, target: Target) -> CatalogAnswer:
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return CatalogAnswer(call.number, 200)


CATALOGS = NamedCatalogs("lake", {name: CatalogConfig("sql", name, {}) for name in ("lake", "archive")})


def calls_of(sent: list[CatalogAnswer]) -> tuple[CatalogCalls, Service]:
    service = Service()

    async def open_(name: str) -> IcebergRest:
        service.names.append(name)
        await service.opened.wait()
        if service.trouble is not None:
            raise service.trouble
        return cast(IcebergRest, service)

    return CatalogCalls(Warehouses(CATALOGS), open_, sent.append), service


async def test_calls_wait_for_the_catalog() -> None:
    sent: list[CatalogAnswer] = []
    calls, service = calls_of(sent)
    service.opened.clear()
    calls.receive(CatalogCall(1, "GET", "v1/config"))
    await asyncio.sleep(0)
    service.opened.set()
    service.go.set()
    await until(lambda: sent == [CatalogAnswer(1, 200)])


async def test_each_catalog_is_opened_once_when_it_is_asked() -> None:
    sent: list[CatalogAnswer] = []
    calls, service = calls_of(sent)
    service.go.set()
    for number, path in enumerate(("v1/namespaces", "v1/archive/namespaces", "v1/lake/namespaces", "v1/x/namespaces")):
        calls.receive(CatalogCall(number, "GET", path))
        await until(lambda: len(sent) == number + 1)  # noqa: B023
    assert service.names == ["lake", "archive"]
    assert [answer.status for answer in sent] == [200, 200, 200, 404]


async def test_a_catalog_that_hangs_leaves_places_to_the_others() -> None:
    sent: list[CatalogAnswer] = []
    calls, service = calls_of(sent)
    for number in range(module.CALLS_MAX + 1):
        calls.receive(CatalogCall(number, "GET", "v1/archive/namespaces"))
    await until(lambda: sent)
    assert [(answer.number, answer.status) for answer in sent] == [(module.CALLS_MAX, 503)]
    assert b"the catalog archive has 24 requests" in sent[0].body
    calls.receive(CatalogCall(100, "GET", "v1/lake/namespaces"))
    service.go.set()
    await until(lambda: len(sent) == module.CALLS_MAX + 2)
    assert [answer.status for answer in sent[1:]] == [200] * (module.CALLS_MAX + 1)
    calls.receive(CatalogCall(101, "GET", "v1/archive/namespaces"))
    await until(lambda: sent[-1] == CatalogAnswer(101, 200))


async def test_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_TIMEOUT_S", 0.01)
    sent: list[CatalogAnswer] = []
    calls, service = calls_of(sent)
    service.opened.clear()
    calls.receive(CatalogCall(1, "GET", "v1/config"))
    await until(lambda: sent)
    assert sent[0].status == 503 and b"is being opened" in sent[0].body


async def test_a_catalog_that_cannot_be_opened_is_told_and_tried_again() -> None:
    sent: list[CatalogAnswer] = []
    calls, service = calls_of(sent)
    service.trouble = Unavailable("it is away")
    calls.receive(CatalogCall(1, "GET", "v1/config"))
    await until(lambda: sent)
    assert sent[0].status == 503 and b"it is away" in sent[0].body
    service.trouble = None
    service.go.set()
    calls.receive(CatalogCall(2, "GET", "v1/config"))
    await until(lambda: len(sent) == 2)
    assert sent[1].status == 200


async def test_one_under_way_is_waited_for_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[CatalogAnswer] = []
    calls, service = calls_of(sent)
    await calls.finish()
    calls.receive(CatalogCall(1, "POST", "v1/transactions/commit"))
    finishing = asyncio.create_task(calls.finish())
    await asyncio.sleep(0)
    assert not finishing.done()
    service.go.set()
    await finishing
    assert sent == [CatalogAnswer(1, 200)]
    service.go.clear()
    monkeypatch.setattr(module, "FINISH_TIMEOUT_S", 0.01)
    calls.receive(CatalogCall(2, "POST", "v1/transactions/commit"))
    await calls.finish()
    assert len(sent) == 1, "one that hangs does not hold up the end"
    service.go.set()
    await until(lambda: len(sent) == 2)


async def test_a_bug_is_answered_too() -> None:
    sent: list[CatalogAnswer] = []
    calls, service = calls_of(sent)
    service.error = KeyError("secret")
    service.go.set()
    calls.receive(CatalogCall(1, "GET", "v1/config"))
    await until(lambda: sent)
    assert sent[0].status == 500 and b"secret" not in sent[0].body

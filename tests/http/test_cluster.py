"""The cluster over HTTP: drains wait, bad requests say what is wrong, and strangers change nothing."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from support.http_routes import serving

from streamlake.core.errors import Conflict, Invalid, NotFound, OutcomeUnknown, Unavailable
from streamlake.http import cluster as module

TOKEN = "t0ken-of-sixteen-letters"
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


class Cluster:
    """Node 1 loses a partition each time that it is looked at, once it is drained."""

    def __init__(self) -> None:
        self.left = 3
        self.drained: dict[int, bool] = {}  # whether until the restart
        self.error: Exception | None = None

    async def status(self) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        return {"brokers": [{"node": 1, "partitions": self.left}]}

    async def progress(self, node: int) -> dict[str, Any]:
        if node in self.drained:
            self.left = max(0, self.left - 1)
        return {"node": node, "partitions": self.left, "done": not self.left}

    async def drain(self, node: int, *, until_restart: bool) -> None:
        if self.error is not None:
            raise self.error
        self.drained[node] = until_restart

    async def undrain(self, node: int) -> None:
        del self.drained[node]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(module, "LOOK_INTERVAL_S", 0.001)
    return Cluster()


@pytest.fixture
def serve(cluster: Cluster) -> Serve:
    return lambda *tokens: serving(module.routes(cluster, tokens))


async def test_the_cluster(serve: Serve) -> None:
    async with serve() as http:
        answer = await http.get("/v1/cluster")
        assert (answer.status_code, answer.json()) == (200, {"brokers": [{"node": 1, "partitions": 3}]})
        assert (await http.get("/v1/brokers/1/drain")).status_code == 405


async def test_a_drain_is_waited_for(serve: Serve, cluster: Cluster) -> None:
    async with serve() as http:
        answer = await http.post("/v1/brokers/1/drain")
        assert (answer.status_code, answer.json()) == (200, {"node": 1, "partitions": 0, "done": True})
        assert cluster.drained == {1: False}
        assert (await http.post("/v1/brokers/1/undrain")).status_code == 200
        assert cluster.drained == {}


async def test_a_drain_that_takes_longer_goes_on(serve: Serve, cluster: Cluster) -> None:
    async with serve() as http:
        answer = await http.post("/v1/brokers/1/drain?timeout_s=0&until_restart=true")
        assert (answer.status_code, answer.json()) == (202, {"node": 1, "partitions": 2, "done": False})
        assert cluster.drained == {1: True}


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v1/brokers/one/drain", "'one' is no node id"),
        ("/v1/brokers/-1/undrain", "'-1' is no node id"),
        ("/v1/brokers/99999999999/drain", "is no node id"),
        ("/v1/brokers/1/drain?timeout_s=soon", "timeout_s='soon': give seconds from 0 to 600"),
        ("/v1/brokers/1/drain?timeout_s=-1", "give seconds"),
        ("/v1/brokers/1/drain?timeout_s=nan", "give seconds"),
        ("/v1/brokers/1/drain?timeout_s=601", "give seconds"),
        ("/v1/brokers/1/drain?until_restart=yes", "give true or false"),
    ],
)
async def test_what_cannot_be_meant(serve: Serve, cluster: Cluster, path: str, says: str) -> None:
    async with serve() as http:
        answer = await http.post(path)
        assert answer.status_code == 400 and says in answer.json()["error"]["message"]
    assert cluster.drained == {}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Invalid("no other broker is there"), 400),
        (NotFound("there is no broker 1"), 404),
        (Conflict("it changed"), 409),
        (Unavailable("away"), 503),
        (OutcomeUnknown("no answer"), 504),
    ],
)
async def test_what_the_cluster_refuses(serve: Serve, cluster: Cluster, error: Exception, status: int) -> None:
    cluster.error = error
    async with serve() as http:
        answer = await http.post("/v1/brokers/1/drain")
        assert (answer.status_code, answer.json()["error"]["message"]) == (status, str(error))
        assert (await http.get("/v1/cluster")).status_code == status


async def test_strangers_may_look_and_change_nothing(serve: Serve, cluster: Cluster) -> None:
    async with serve(TOKEN) as http:
        assert (await http.get("/v1/cluster")).status_code == 200
        assert (await http.post("/v1/brokers/1/drain")).status_code == 401
        wrong = {"authorization": "Bearer wrong"}
        assert (await http.post("/v1/brokers/1/undrain", headers=wrong)).status_code == 401
        assert cluster.drained == {}
        known = {"authorization": f"Bearer {TOKEN}"}
        assert (await http.post("/v1/brokers/1/drain", headers=known)).status_code == 200


async def test_web_pages_change_nothing(serve: Serve, cluster: Cluster) -> None:
    """A page in a browser of this machine could reach us."""
    async with serve() as http:
        page = {"origin": "http://example.com"}
        assert (await http.post("/v1/brokers/1/drain", headers=page)).status_code == 403
    assert cluster.drained == {}

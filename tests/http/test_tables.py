"""Dead letters and redrives over HTTP: strangers get nothing, bad requests say what is wrong."""

from collections.abc import Mapping

from support.http_routes import serving

from streamlake.core.errors import Conflict, Full, Invalid, NotFound, OutcomeUnknown, StreamLakeError
from streamlake.http.tables import routes
from streamlake.table.task.control import CatalogAnswer

TOKEN = "t0ken-of-sixteen-letters"


class Worker:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Mapping[str, str]]] = []
        self.error: StreamLakeError | None = None

    async def ask(self, topic: str, action: str, arguments: Mapping[str, str]) -> CatalogAnswer:
        if self.error is not None:
            raise self.error
        self.asked.append((topic, action, arguments))
        return CatalogAnswer(0, 202 if action == "redrive" else 200, b'{"a":1}')

    async def plan(self, topic: str, configs: Mapping[str, str], sample: int) -> CatalogAnswer:
        if self.error is not None:
            raise self.error
        self.asked.append((topic, str(sample), configs))
        return CatalogAnswer(0, 200, b'{"a":2}')


async def test_what_is_asked_reaches_the_worker() -> None:
    worker = Worker()
    async with serving(routes(worker, [])) as client:
        got = await client.get("/v1/tables/or%C3%A4nge.x/dead-letters", params={"examples": "7"})
        assert (got.status_code, got.json()) == (200, {"a": 1})
        assert (await client.get("/v1/tables/t/dead-letters")).status_code == 200
        assert (await client.post("/v1/tables/t/redrive?reason=unknown_schema")).status_code == 202
    assert worker.asked == [
        ("oränge.x", "dead_letters", {"examples": "7"}),
        ("t", "dead_letters", {"examples": "3"}),
        ("t", "redrive", {"reason": "unknown_schema"}),
    ]


async def test_a_plan_may_have_other_configs() -> None:
    worker = Worker()
    async with serving(routes(worker, [])) as client:
        given = [("set", "a=b=c"), ("set", "d="), ("sample", "7")]
        assert (await client.get("/v1/tables/t/plan", params=given)).json() == {"a": 2}
        assert (await client.get("/v1/tables/t/plan")).status_code == 200
        for query, says in (("set=a", "give a config as KEY=VALUE"), ("sample=10001", "from 0 to 10000")):
            refused = await client.get(f"/v1/tables/t/plan?{query}")
            assert refused.status_code == 400 and says in refused.text
        worker.error = Invalid("no such config")
        assert (await client.get("/v1/tables/t/plan")).status_code == 400
    assert worker.asked == [("t", "7", {"a": "b=c", "d": ""}), ("t", "1000", {})]


async def test_errors_have_their_status_and_say_why() -> None:
    worker = Worker()
    async with serving(routes(worker, [])) as client:
        bad = await client.get("/v1/tables/t/dead-letters?examples=many")
        assert bad.status_code == 400 and "give a number from 0 to 20" in bad.text
        for error, status in ((NotFound, 404), (Conflict, 409), (Full, 503), (OutcomeUnknown, 504)):
            worker.error = error("this is why")
            answer = await client.post("/v1/tables/t/redrive")
            assert (answer.status_code, answer.json()["error"]["message"]) == (status, "this is why")
        assert (await client.get("/v1/tables/t/redrive")).status_code == 405


async def test_strangers_and_web_pages_are_refused() -> None:
    worker = Worker()
    async with serving(routes(worker, [])) as client:
        assert (await client.post("/v1/tables/t/redrive", headers={"origin": "http://evil"})).status_code == 403
    async with serving(routes(worker, [TOKEN])) as client:
        assert (await client.get("/v1/tables/t/dead-letters")).status_code == 401
        given = {"authorization": f"Bearer {TOKEN}"}
        assert (await client.get("/v1/tables/t/dead-letters", headers=given)).status_code == 200
    assert len(worker.asked) == 1

"""AWS Glue for tests: moto's, behind a server of our own that is as strict as AWS where moto is not.

    with StrictGlue() as glue:
        glue.endpoint               # http://127.0.0.1:…, for boto3 and PyIceberg's `glue.endpoint`

As AWS documents it: names of databases and tables are folded to lower case when they are stored and looked up; an
UpdateTable whose VersionId is not the current one is a ConcurrentModificationException; a type of a column has at most
131,072 characters, a comment 255, a name 255. The request is folded before moto sees it, so nothing in moto can undo it.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from moto.core.request import Request
from moto.glue.responses import GlueResponse

CONTENT_TYPE = "application/x-amz-json-1.1"
URL = "https://glue.us-east-1.amazonaws.com/"
TYPE_CHARACTERS_MAX = 131_072
COMMENT_CHARACTERS_MAX = 255
NAME_CHARACTERS_MAX = 255


class Refused(Exception):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class StrictGlue:
    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="strict-glue", daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "StrictGlue":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets: the second one would wait 40 ms
    one_at_a_time = threading.Lock()  # an UpdateTable looks at the version and then replaces it: nothing comes between

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        action = self.headers["X-Amz-Target"].rpartition(".")[2]
        try:
            fold(asked)
            check(asked.get("TableInput", {}))
            with self.one_at_a_time:
                if action == "UpdateTable" and "VersionId" in asked:
                    self.check_version(asked)
                status, answer = self.ask_moto(action, asked)
        except Refused as refused:
            status, answer = 400, json.dumps({"__type": refused.kind, "message": str(refused)}).encode()
        self.send_response(status)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def check_version(self, asked: dict[str, Any]) -> None:
        wanted = {"DatabaseName": asked["DatabaseName"], "Name": asked["TableInput"]["Name"]}
        status, answer = self.ask_moto("GetTable", wanted)
        if status == 200 and json.loads(answer)["Table"]["VersionId"] != str(asked["VersionId"]):
            raise Refused("ConcurrentModificationException", "Update table failed due to concurrent modifications.")

    def ask_moto(self, action: str, asked: dict[str, Any]) -> tuple[int, bytes]:
        headers = {"X-Amz-Target": f"AWSGlue.{action}", "Content-Type": CONTENT_TYPE}
        headers["Authorization"] = self.headers.get("Authorization", "")
        request = Request.from_primitives("POST", URL, headers, json.dumps(asked).encode())
        status, _, answer = GlueResponse.dispatch(request, URL, headers)
        return int(status), answer if isinstance(answer, bytes) else str(answer).encode()

    def log_message(self, *_: object) -> None:
        pass


def fold(asked: dict[str, Any]) -> None:
    """Names of databases and tables in lower case, wherever a request has them."""
    places = [(asked, "DatabaseName"), (asked.get("DatabaseInput", {}), "Name"), (asked.get("TableInput", {}), "Name")]
    for values, key in [*places, (asked, "Name")]:
        if isinstance(values.get(key), str):
            values[key] = values[key].lower()


def check(table: dict[str, Any]) -> None:
    """The limits of a TableInput."""
    limited = [("table.name", table.get("Name", ""), NAME_CHARACTERS_MAX)]
    for column in table.get("StorageDescriptor", {}).get("Columns", []):
        limited.append(("column.name", column["Name"], NAME_CHARACTERS_MAX))
        limited.append(("column.type", column.get("Type", ""), TYPE_CHARACTERS_MAX))
        limited.append(("column.comment", column.get("Comment", ""), COMMENT_CHARACTERS_MAX))
    for what, value, most in limited:
        if len(value) > most:
            raise Refused(
                "InvalidInputException",
                f"1 validation error detected: Value at '{what}' failed to satisfy constraint: "
                f"Member must have length less than or equal to {most}",
            )

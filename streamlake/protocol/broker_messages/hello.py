"""Hello (20000), version 0: which broker asks on this connection, and that it belongs to the cluster.

`proof`: cluster/secret.py.
"""

from typing import Annotated

from msgspec import Struct


class HelloRequest(Struct, frozen=True):
    node: Annotated[int, "int32 0+"] = -1
    epoch: Annotated[int, "int64 0+"] = -1
    proof: Annotated[bytes, "bytes 0+"] = b""


class HelloResponse(Struct, frozen=True):
    error_code: Annotated[int, "int16 0+"] = 0


KEY = 20_000
VERSIONS = range(1)
FLEXIBLE_FROM = 0
REQUEST = HelloRequest
RESPONSE = HelloResponse

"""The body of a request, within limits of size and time."""

import asyncio

from starlette.requests import Request

TIMEOUT_S = 30.0


class TooLarge(Exception):
    """Answer with `connection: close`: else the server would go on to read a body that may never end."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"the body is larger than {bytes_max} bytes")


async def read(request: Request, bytes_max: int) -> bytes:
    """Raises TooLarge, TimeoutError, and starlette's ClientDisconnect."""
    parts, size_bytes = [], 0
    async with asyncio.timeout(TIMEOUT_S):
        async for part in request.stream():
            size_bytes += len(part)
            if size_bytes > bytes_max:
                raise TooLarge(bytes_max)
            parts.append(part)
    return b"".join(parts)

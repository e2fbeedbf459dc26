"""Listening sockets: bound before anything is recovered, so that a mistake is a clear error and port 0 is known. And
which addresses are this machine's alone, and which refuse."""

import asyncio
import errno
import ipaddress
import os
import socket

from streamlake.core.errors import Invalid, Unavailable

UNKNOWN_NAME = int(socket.EAI_NONAME)
CONNECT_TIMEOUT_S = 1.0


def bind(host: str, port: int, what: str, host_key: str, port_key: str, backlog: int) -> socket.socket:
    """A socket that listens for `what`; errors name the key of the configuration that must change.

    Invalid: not an address of this machine, or a port that may not be had. Unavailable: the port is in use."""
    where = f"cannot listen on {host}:{port} for {what}"
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=backlog)
    except (TypeError, UnicodeError):  # what Python says of a name that can be none
        reason, code = "this is no name of a host", UNKNOWN_NAME
    except OSError as error:
        code = error.errno or 0
        # create_server makes a plain OSError of getaddrinfo's, whose codes are below zero, and adds words to the text.
        reason = os.strerror(code) if code > 0 else str(error.strerror).partition(" (while")[0]
    match code:
        case errno.EADDRNOTAVAIL:
            raise Invalid(
                f"{where}: it is no address of this machine. Give {host_key} one that is, or 0.0.0.0 for all; the "
                "address that clients are told is server.advertised_host (--advertised-host)"
            )
        case errno.EADDRINUSE:
            raise Unavailable(f"{where}: {reason}; is a server running? Give another {port_key}")
        case _ if code < 0:
            raise Invalid(f"{where}: {reason}. Give {host_key} an address of this machine")
    raise Unavailable(f"{where}: {reason}; give another {port_key} or {host_key}")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there. False for any other name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def may_be_elsewhere(host: str, ours: str) -> bool:
    """Whether `host` is a loopback address and our own is none. It may be that of another machine then, and nothing
    follows from who answers there; if both are, all brokers are on this machine."""
    return is_loopback(host) and not is_loopback(ours)


async def refuses(host: str, port: int, timeout_s: float = CONNECT_TIMEOUT_S) -> bool:
    """Whether this address answers that nobody listens there. No answer in time, or an address that is not there any
    more, is no refusal: what listens may still reach others."""
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    writer.close()
    return False

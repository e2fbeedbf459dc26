"""The two addresses that commands take, `--bootstrap` and `--http`, as people write them."""

from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit

import typer

KAFKA_PORT = 9092
HTTP_PORT = 8081
DEFAULT_BOOTSTRAP = f"127.0.0.1:{KAFKA_PORT}"
DEFAULT_HTTP = f"http://127.0.0.1:{HTTP_PORT}"


def brokers(text: str) -> list[tuple[str, int]]:
    """`a`, `a:9092,b:9093` or `[::1]:9092` as hosts and ports. ValueError says what is wrong."""
    found = [_host_and_port(item.strip(), KAFKA_PORT) for item in text.split(",") if item.strip()]
    if not found:
        raise ValueError("is empty: it must be host:port, or several with commas between")
    return found


def bootstrap(text: str) -> str:
    """The same brokers with all ports, as every Kafka client takes them."""
    return ",".join(_join(host, port) for host, port in brokers(text))


def http(text: str) -> str:
    """An URL without a slash at its end. What has no scheme is host or host:port."""
    text = text.strip().rstrip("/")
    if "://" not in text:
        host, port = _host_and_port(text, HTTP_PORT)
        return f"http://{_join(host, port)}"
    try:
        parts = urlsplit(text)
        _ = parts.port  # is read to be checked
    except ValueError as error:
        raise ValueError(f"is no URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"must be an http:// or https:// URL, or host:port, not {text!r}")
    return text


def _host_and_port(text: str, default: int) -> tuple[str, int]:
    wrong = ValueError(f"must be host:port, not {text!r}")
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
        if not closed or (rest and not rest.startswith(":")):
            raise wrong
    elif text.count(":") > 1:  # an IPv6 address, which has no place for a port
        host, port, rest = text, "", ""
    else:
        host, rest, port = text.partition(":")
    if not host or any(c in host for c in "/@[] \t") or (rest and not port):
        raise wrong
    if not port:
        return host, default
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= 65535):
        raise ValueError(f"must be host:port with a port from 1 to 65535, not {text!r}")
    return host, int(port)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _checked(read: Callable[[str], str]) -> Callable[[str], str]:
    def check(text: str) -> str:
        try:
            return read(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return check


Bootstrap = Annotated[
    str,
    typer.Option(
        "--bootstrap",
        "-b",
        envvar="STREAMLAKE_BOOTSTRAP",
        help="Kafka addresses of brokers, host:port[,…]; the first that answers is asked.",
        callback=_checked(bootstrap),
    ),
]
Token = Annotated[
    str | None,
    typer.Option(envvar="STREAMLAKE_TOKEN", help="One of the server's [http] tokens, if it wants one."),
]
Http = Annotated[
    str,
    typer.Option(
        "--http",
        envvar="STREAMLAKE_HTTP",
        help="HTTP address of a broker: registry, tables, metrics.",
        callback=_checked(http),
    ),
]

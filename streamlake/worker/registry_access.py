"""How the worker reaches the schema registry: the server's own, or another one with credentials and TLS."""

import base64
import ssl
import urllib.request
from typing import Any

from streamlake.core.errors import Invalid
from streamlake.table.task.control import RegistryAccess

ACCEPT = "application/vnd.schemaregistry.v1+json, application/json"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """To follow one would hand our credentials to whatever address it names."""

    def redirect_request(self, *_: Any) -> None:
        return None


def opener_of(access: RegistryAccess | None) -> urllib.request.OpenerDirector:
    """`access` is None for the server's own registry. Raises Invalid: a file of certificates cannot be used."""
    if access is None:
        # It is the server that started us: a proxy from the environment would only be in the way.
        return urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(_NoRedirects(), urllib.request.HTTPSHandler(context=_tls(access)))
    opener.addheaders = [("Accept", ACCEPT), ("User-Agent", "streamlake")]
    if access.token:
        opener.addheaders.append(("Authorization", f"Bearer {access.token}"))
    elif access.username:
        pair = base64.b64encode(f"{access.username}:{access.password}".encode()).decode()
        opener.addheaders.append(("Authorization", f"Basic {pair}"))
    return opener


def _tls(access: RegistryAccess) -> ssl.SSLContext:
    key, file = "ca_file", access.ca_file
    try:
        context = ssl.create_default_context(cafile=file or None)
        if access.certificate_file:
            key, file = "certificate_file", access.certificate_file
            context.load_cert_chain(file, access.key_file or None)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise Invalid(f"registry.{key} = {file} cannot be used ({error}): give the path of a PEM file") from None
    return context

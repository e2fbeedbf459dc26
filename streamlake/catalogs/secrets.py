"""Keeps the secrets of catalogs out of texts: a library's error may quote what it was given."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from streamlake.catalogs.config import CatalogConfig

_SECRET_KEY = re.compile(r"secret|password|token|credential|account-key|connection-string|header\.|auth", re.IGNORECASE)
_HARMLESS_KEYS = ("oauth2-server-uri", "gcs.oauth2.token-expires-at", "hive.kerberos-authentication")
_CHARS_MIN = 4  # a shorter one would blot out common words
_HIDDEN = "[secret]"


def hider(catalogs: Iterable[CatalogConfig], others: Iterable[str] = ()) -> Callable[[str], str]:
    """A function that returns a text without the secrets of these catalogs, and without `others`."""
    found = {*others, *(secret for config in catalogs for secret in _of(config.properties))}
    forms = {form for secret in found if len(secret) >= _CHARS_MIN for form in (secret, quote(secret, safe=""))}
    if not forms:
        return lambda text: text
    pattern = re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))))
    return lambda text: pattern.sub(_HIDDEN, text)


def _of(properties: Mapping[str, Any], inside: bool = False) -> Iterator[str]:
    for key, value in properties.items():
        secret = inside or (_SECRET_KEY.search(key) is not None and key not in _HARMLESS_KEYS)
        if isinstance(value, Mapping):
            yield from _of(value, secret)
        elif key == "uri":
            yield from _in_uri(str(value))
        elif secret:
            yield str(value)
            if key == "credential":  # client:secret
                yield str(value).rpartition(":")[2]


def _in_uri(uri: str) -> Iterator[str]:
    try:
        password = urlsplit(uri).password
    except ValueError:
        return
    if password:
        yield password

"""The object store of one catalog: its address, and the server's own key to it. boto3 is imported when it is needed."""

import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pyiceberg.io import (
    AWS_ACCESS_KEY_ID,
    AWS_PROFILE_NAME,
    AWS_REGION,
    AWS_SECRET_ACCESS_KEY,
    AWS_SESSION_TOKEN,
    S3_ACCESS_KEY_ID,
    S3_ENDPOINT,
    S3_FORCE_VIRTUAL_ADDRESSING,
    S3_PROFILE_NAME,
    S3_REGION,
    S3_SECRET_ACCESS_KEY,
    S3_SESSION_TOKEN,
)

PATH_STYLE = "s3.path-style-access"  # Java's word for what is not S3_FORCE_VIRTUAL_ADDRESSING
DEFAULT_REGION = "us-east-1"
_KEYS = {
    "aws_access_key_id": (S3_ACCESS_KEY_ID, AWS_ACCESS_KEY_ID),
    "aws_secret_access_key": (S3_SECRET_ACCESS_KEY, AWS_SECRET_ACCESS_KEY),
    "aws_session_token": (S3_SESSION_TOKEN, AWS_SESSION_TOKEN),
    "profile_name": (S3_PROFILE_NAME, AWS_PROFILE_NAME),
    "region_name": (S3_REGION, AWS_REGION),
}


class Store:
    """`properties`: those of the pyiceberg catalog."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self._properties = properties
        self._lock = threading.Lock()
        self._session: Any = None

    @property
    def region(self) -> str:
        return self._first(_KEYS["region_name"]) or DEFAULT_REGION

    def addresses(self, bucket: str) -> list[tuple[str, str, str]]:
        """Where the keys of a bucket are: scheme, host (with port if it is not the scheme's), what comes before a key.

        At a store of your own only the way in which it is used: one that knows no buckets by host names would take
        the first part of a key for a bucket."""
        if endpoint := self._properties.get(S3_ENDPOINT):
            url = urlsplit(str(endpoint))
            host = host_of(url)
            return [(url.scheme, f"{bucket}.{host}", "/") if self._is_virtual else (url.scheme, host, f"/{bucket}/")]
        domain = "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"
        hosts = f"s3.{self.region}.{domain}", f"s3.{domain}"
        by_path = [("https", host, f"/{bucket}/") for host in hosts]
        return [*by_path, *(("https", f"{bucket}.{host}", "/") for host in hosts)]

    @property
    def _is_virtual(self) -> bool:
        return str(self._properties.get(S3_FORCE_VIRTUAL_ADDRESSING, "")).lower() == "true"

    def session(self) -> Any:
        """boto3's, with the key of the catalog's properties, or what boto3 finds in this environment."""
        with self._lock:
            if self._session is None:
                import boto3

                given = {name: self._first(keys) or None for name, keys in _KEYS.items()}
                self._session = boto3.Session(**given)
            return self._session

    def address(self) -> dict[str, str]:
        """What a client needs to know beside a key."""
        found = {}
        if region := self._first(_KEYS["region_name"]):
            found = {S3_REGION: region, AWS_REGION: region}
        if endpoint := self._properties.get(S3_ENDPOINT):
            found[S3_ENDPOINT] = str(endpoint)
            found[PATH_STYLE] = str(not self._is_virtual).lower()
        return found

    def own_key(self) -> dict[str, str]:
        """The server's, as it stands in the properties."""
        return {key: self._first((key,)) for key in (S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY, S3_SESSION_TOKEN)
                if self._first((key,))}  # fmt: skip

    def _first(self, keys: tuple[str, ...]) -> str:
        return next((str(self._properties[key]) for key in keys if self._properties.get(key)), "")


def host_of(url: SplitResult) -> str:
    """With the port, unless it is the scheme's own."""
    default = {"http": 80, "https": 443}.get(url.scheme)
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname or ""
    return host if url.port in (None, default) else f"{host}:{url.port}"

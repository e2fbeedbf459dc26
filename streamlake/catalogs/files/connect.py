"""obstore's client of a bucket by PyIceberg's own keys: s3.* and client.*, gcs.*, adls.*, also those that are vended.

`why_not` names what obstore cannot do, for which PyIceberg's own FileIO stays.
"""

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore.store
from obstore.exceptions import BaseError
from pyarrow.fs import resolve_s3_region
from pyiceberg import io as keys
from pyiceberg.utils.properties import get_first_property_value, property_as_bool

from streamlake.core.errors import Invalid
from streamlake.s3stream.store.client import CHECKSUM, given_endpoint, given_keys

S3_SCHEMES = ("s3", "s3a", "s3n")
GCS_SCHEMES = ("gs", "gcs")
AZURE_SCHEMES = ("abfs", "abfss", "wasb", "wasbs")
SCHEMES = S3_SCHEMES + GCS_SCHEMES + AZURE_SCHEMES

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 60.0
REGIONS_MAX = 1000  # that are remembered, by bucket
# What is retried does no harm when repeated: bucket.py says why.
RETRIES: Any = {
    "max_retries": 5,
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5)},
    "retry_timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
}

OF_STORES = ("s3.", "client.", "gcs.", "adls.")  # how keys begin that say how buckets are reached
_NOT_IN_OBSTORE = {
    "s3": (
        keys.S3_ROLE_ARN,
        keys.AWS_ROLE_ARN,
        keys.S3_PROFILE_NAME,
        keys.AWS_PROFILE_NAME,
        keys.S3_SIGNER,
        keys.S3_RETRY_STRATEGY_IMPL,
    ),
    "gs": (),
    "az": (keys.ADLS_CREDENTIAL,),
}
_AZURE_SUFFIX = "core.windows.net"

Properties = Mapping[str, Any]


def why_not(scheme: str, properties: Properties, environ: Mapping[str, str] = os.environ) -> str:
    """The key, or what else it is, that obstore could not do as it is meant; "" if it can do everything."""
    for key in _NOT_IN_OBSTORE[_family(scheme)]:
        if properties.get(key):
            return key
    if _family(scheme) == "s3" and not _has_s3_credentials(properties, environ):
        return next((f"the AWS profile in {path}" for path in _profile_files(environ) if path.is_file()), "")
    return ""


def _family(scheme: str) -> str:
    return "s3" if scheme in S3_SCHEMES else "gs" if scheme in GCS_SCHEMES else "az"


def _has_s3_credentials(properties: Properties, environ: Mapping[str, str]) -> bool:
    given = _first(properties, keys.S3_ACCESS_KEY_ID, keys.AWS_ACCESS_KEY_ID)
    return bool(
        given
        or property_as_bool(dict(properties), keys.S3_ANONYMOUS, False)
        or environ.get("AWS_ACCESS_KEY_ID")
        or environ.get("AWS_WEB_IDENTITY_TOKEN_FILE")
    )


def _profile_files(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where the AWS command line keeps credentials; obstore does not read them."""
    home = Path(environ.get("HOME", "/")) / ".aws"
    return (
        Path(environ.get("AWS_SHARED_CREDENTIALS_FILE", home / "credentials")),
        Path(environ.get("AWS_CONFIG_FILE", home / "config")),
    )


def connect(scheme: str, netloc: str, properties: Properties) -> Any:
    """The obstore store whose keys are paths below scheme://netloc/. Nothing is sent yet. Invalid names the key that is
    wrong."""
    make: Callable[[str, dict[str, str]], Any] = {"s3": _s3, "gs": _gcs, "az": _azure}[_family(scheme)]
    try:
        return make(netloc, of_stores(properties))
    except (BaseError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise Invalid(f"{scheme}://{netloc} cannot be reached with the catalog's properties: {reason}") from None


def of_stores(properties: Properties) -> dict[str, str]:
    """What says how buckets are reached."""
    return {key: str(value) for key, value in properties.items() if key.startswith(OF_STORES) and value}


def _s3(bucket: str, properties: dict[str, str]) -> Any:
    of_environment = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    endpoint = properties.get(keys.S3_ENDPOINT) or of_environment
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise ValueError(f"{keys.S3_ENDPOINT} must be an address such as https://s3.example.com")
    region = _s3_region(bucket, properties, endpoint)
    # As PyArrow does it. A name with dots would not fit the certificate of Amazon's hosts.
    by_host = property_as_bool(properties, keys.S3_FORCE_VIRTUAL_ADDRESSING, endpoint is None and "." not in bucket)
    if endpoint is None and (region or "").startswith("cn-"):
        endpoint = f"https://s3.{region}.amazonaws.com.cn"
    config: dict[str, Any] = {
        "region": region,
        "virtual_hosted_style_request": by_host,
        "skip_signature": property_as_bool(properties, keys.S3_ANONYMOUS, False),
        "server_side_encryption": properties.get(keys.S3_SERVER_SIDE_ENCRYPTION),
        "sse_kms_key_id": properties.get(keys.S3_SSE_KMS_KEY_ID),
        "checksum_algorithm": CHECKSUM,
    }
    if endpoint is not None:
        url = urlsplit(endpoint)
        whole = f"{url.scheme}://{bucket}.{url.netloc}" if by_host else endpoint
        config |= given_endpoint(whole)
    return obstore.store.S3Store(
        bucket,
        config={key: value for key, value in config.items() if value is not None},  # type: ignore[arg-type]
        credential_provider=_s3_credentials(properties),
        **_client(endpoint, properties),
    )


def _s3_region(bucket: str, properties: dict[str, str], endpoint: str | None) -> str | None:
    given = _first(properties, keys.S3_REGION, keys.AWS_REGION)
    if endpoint is None and (given is None or property_as_bool(properties, keys.S3_RESOLVE_REGION, False)):
        try:
            return _region_of(bucket)
        except OSError:
            return given
    return given


@lru_cache(REGIONS_MAX)
def _region_of(bucket: str) -> str:
    """Of a bucket of Amazon's: a request, which newly vended credentials need not repeat."""
    return str(resolve_s3_region(bucket))


def _s3_credentials(properties: dict[str, str]) -> Callable[[], Any] | None:
    """None: obstore looks for them."""
    key = _first(properties, keys.S3_ACCESS_KEY_ID, keys.AWS_ACCESS_KEY_ID)
    secret = _first(properties, keys.S3_SECRET_ACCESS_KEY, keys.AWS_SECRET_ACCESS_KEY)
    if key is None or secret is None:
        return None
    return given_keys(key, secret, _first(properties, keys.S3_SESSION_TOKEN, keys.AWS_SESSION_TOKEN))


def _gcs(bucket: str, properties: dict[str, str]) -> Any:
    endpoint = properties.get(keys.GCS_SERVICE_HOST)
    token = properties.get(keys.GCS_TOKEN)
    expires_at = _time(properties.get(keys.GCS_TOKEN_EXPIRES_AT_MS))
    return obstore.store.GCSStore(
        bucket,
        config={"base_url": endpoint.rstrip("/")} if endpoint else {},
        credential_provider=(lambda: {"token": token, "expires_at": expires_at}) if token else None,  # type: ignore[arg-type]
        **_client(endpoint, properties),
    )


def _time(milliseconds: str | None) -> datetime | None:
    if milliseconds is None:
        return None
    try:
        return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{keys.GCS_TOKEN_EXPIRES_AT_MS} must be milliseconds since 1970") from None


def _azure(netloc: str, properties: dict[str, str]) -> Any:
    """`netloc` is container, or container@account.dfs.core.windows.net."""
    container, _, host = netloc.partition("@")
    stated = _connection_string(properties.get(keys.ADLS_CONNECTION_STRING, ""))
    account = properties.get(keys.ADLS_ACCOUNT_NAME) or stated.get("AccountName") or host.partition(".")[0]
    vended = {key: value for key, value in properties.items() if key.startswith(f"{keys.ADLS_SAS_TOKEN}.")}
    if not account and vended:
        account = next(iter(vended)).removeprefix(f"{keys.ADLS_SAS_TOKEN}.").partition(".")[0]
    if not account:
        raise ValueError(
            f"set {keys.ADLS_ACCOUNT_NAME}, or give locations like abfss://container@account.dfs.{_AZURE_SUFFIX}/path"
        )
    of_account = [value for key, value in vended.items() if key.split(".")[2] == account]
    endpoint = _azure_endpoint(account, host, properties, stated)
    config: dict[str, Any] = {
        "account_name": account,
        "account_key": properties.get(keys.ADLS_ACCOUNT_KEY) or stated.get("AccountKey"),
        "sas_key": properties.get(keys.ADLS_SAS_TOKEN)
        or stated.get("SharedAccessSignature")
        or next(iter(of_account), None),
        "tenant_id": properties.get(keys.ADLS_TENANT_ID),
        "client_id": properties.get(keys.ADLS_CLIENT_ID),
        "client_secret": properties.get(keys.ADLS_CLIENT_SECRET),
        "token": properties.get(keys.ADLS_TOKEN),
        "skip_signature": property_as_bool(properties, keys.ADLS_ANON, False),
        "endpoint": endpoint,
    }
    return obstore.store.AzureStore(
        container,
        config={key: value for key, value in config.items() if value is not None},  # type: ignore[arg-type]
        **_client(endpoint, properties),
    )


def _azure_endpoint(account: str, host: str, properties: dict[str, str], stated: Mapping[str, str]) -> str:
    scheme = properties.get(keys.ADLS_BLOB_STORAGE_SCHEME, "https")
    if authority := properties.get(keys.ADLS_BLOB_STORAGE_AUTHORITY):
        # As PyArrow reads it: what begins with a dot follows the account, anything else is a host with accounts below.
        return f"{scheme}://{account}{authority}" if authority.startswith(".") else f"{scheme}://{authority}/{account}"
    if given := properties.get(keys.ADLS_ACCOUNT_HOST):
        return f"{scheme}://{given}"
    if given := stated.get("BlobEndpoint"):
        return given.rstrip("/")
    suffix = stated.get("EndpointSuffix") or host.partition(".")[2].partition(".")[2] or _AZURE_SUFFIX
    return f"https://{account}.blob.{suffix}"


def _connection_string(text: str) -> dict[str, str]:
    parts = (part.partition("=") for part in text.split(";"))
    return {key.strip(): value for key, _, value in parts if key}


def _client(endpoint: str | None, properties: dict[str, str]) -> dict[str, Any]:
    connect_s = _seconds(properties, keys.S3_CONNECT_TIMEOUT, CONNECT_TIMEOUT_S)
    request_s = _seconds(properties, keys.S3_REQUEST_TIMEOUT, REQUEST_TIMEOUT_S)
    options: dict[str, Any] = {
        "allow_http": (endpoint or "").startswith("http://"),
        "connect_timeout": timedelta(seconds=connect_s),
        "timeout": timedelta(seconds=request_s),
    }
    if proxy := properties.get(keys.S3_PROXY_URI):
        options["proxy_url"] = proxy
    return {"client_options": options, "retry_config": RETRIES}


def _seconds(properties: dict[str, str], key: str, default: float) -> float:
    try:
        return float(properties.get(key, default))
    except ValueError:
        raise ValueError(f"{key} must be a number of seconds") from None


def _first(properties: Properties, *names: str) -> str | None:
    found = get_first_property_value(dict(properties), *names)
    return str(found) if found else None

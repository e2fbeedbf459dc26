"""What to do about an error of a catalog: which keys of its configuration to look at.

The libraries of catalogs have hundreds of errors, and most are known by name only, as their packages may be missing.
"""

from streamlake.catalogs.config import CatalogConfig

_ADDRESS = {
    "glue": "client.region and glue.endpoint",
    "s3tables": "warehouse and uri",
}
_CREDENTIALS = {
    "sql": "user and password in uri",
    "rest": "token, or credential with oauth2-server-uri and scope, or rest.sigv4-enabled and what it needs",
    "hive": "ugi and hive.kerberos-authentication",
    "glue": "client.access-key-id and client.secret-access-key, or the variables AWS_*",
    "s3tables": "client.access-key-id and client.secret-access-key, or the variables AWS_*",
}
_OF_FILES = ("BucketError",)
_OF_ADDRESS = (
    "ConnectionError", "Timeout", "TTransportException", "EndpointConnectionError", "OperationalError", "NoRegionError",
    "HTTPClientError", "OSError",
)  # fmt: skip
_OF_CREDENTIALS = (
    "OAuthError", "UnauthorizedError", "ForbiddenError", "AuthorizationExpiredError", "NoCredentialsError",
    "PartialCredentialsError",
)  # fmt: skip
_OF_NO_CATALOG = ("ValidationError", "JSONDecodeError", "TProtocolException")
_REFUSED_CREDENTIALS = (
    "AccessDenied", "UnrecognizedClient", "InvalidSignature", "SignatureDoesNotMatch", "ExpiredToken",
    "InvalidClientTokenId", "authentication failed", "get_frozen_credentials",
)  # fmt: skip


def remedy(config: CatalogConfig, error: BaseException) -> str:
    """A sentence for the end of a message."""
    names = [kind.__name__ for kind in type(error).__mro__]
    if any(name in _OF_FILES for name in names):  # before the others: they have some of the same words
        return f"check warehouse, and the keys s3.*, gcs.* or adls.* in {config.where}"
    address = _ADDRESS.get(config.kind, "uri")
    if any(name in _OF_CREDENTIALS for name in names) or any(word in str(error) for word in _REFUSED_CREDENTIALS):
        return f"check {_CREDENTIALS[config.kind]} in {config.where}"
    if any(name in _OF_NO_CATALOG for name in names):
        return f"what answers is no such catalog: check {address} in {config.where}"
    if any(name in _OF_ADDRESS for name in names):
        return f"check {address} in {config.where}, and that the catalog runs"
    return f"check {address}, warehouse and the credentials in {config.where}"

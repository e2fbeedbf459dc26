"""The property keys that a catalog's configuration may have: PyIceberg's own, by kind.

PyIceberg ignores a key that it does not know, so a typing error would silently mean a default. The server must not
import PyIceberg (it takes seconds and 166 MB), so the keys are listed here; a test compares them with PyIceberg's.
"""

from collections.abc import Mapping


def _keys(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Of all kinds: where the files of tables lie, and how they are reached.
_FILES = _keys("""
    warehouse py-io-impl
    client.profile-name client.region client.access-key-id client.secret-access-key client.session-token
    client.role-arn client.role-session-name
    s3.profile-name s3.anonymous s3.endpoint s3.access-key-id s3.secret-access-key s3.session-token s3.region
    s3.resolve-region s3.proxy-uri s3.connect-timeout s3.request-timeout s3.signer s3.signer.uri s3.signer.endpoint
    s3.role-arn s3.role-session-name s3.force-virtual-addressing s3.retry-strategy-impl s3.server-side-encryption
    s3.sse-kms-key-id
    hdfs.host hdfs.port hdfs.user hdfs.kerberos_ticket
    adls.connection-string adls.credential adls.account-name adls.account-key adls.sas-token adls.tenant-id
    adls.client-id adls.client-secret adls.account-host adls.blob-storage-authority adls.dfs-storage-authority
    adls.blob-storage-scheme adls.dfs-storage-scheme adls.token adls.anon
    gcs.oauth2.token gcs.oauth2.token-expires-at gcs.project-id gcs.access gcs.consistency gcs.cache-timeout
    gcs.requester-pays gcs.session-kwargs gcs.service.host gcs.default-bucket-location gcs.version-aware
    hf.endpoint hf.token
""")
_SQL = _keys("uri echo pool_pre_ping init_catalog_tables schema_version")
_REST = _keys("""
    uri token credential scope audience resource oauth2-server-uri prefix auth ssl
    rest.sigv4-enabled rest.signing-region rest.signing-name rest.sigv4.max-retries
    snapshot-loading-mode view-endpoints-supported rest-page-size namespace-separator
""")
_GLUE = _keys("""
    glue.id glue.skip-archive glue.endpoint glue.profile-name glue.region glue.access-key-id glue.secret-access-key
    glue.session-token glue.max-retries glue.retry-mode
""")
_HIVE = _keys("""
    uri ugi hive.hive2-compatible hive.kerberos-authentication hive.kerberos-service-name
    lock-check-min-wait-time lock-check-max-wait-time lock-check-retries
""")

KEYS: Mapping[str, frozenset[str]] = {
    "sql": _FILES | _SQL,
    "rest": _FILES | _REST,
    "s3tables": _FILES | _REST,
    "glue": _FILES | _GLUE,
    "hive": _FILES | _HIVE,
}
HEADERS = "header."  # of a REST catalog: each key that begins so is an HTTP header


def is_known(kind: str, key: str) -> bool:
    return key in KEYS[kind] or (kind in ("rest", "s3tables") and key.startswith(HEADERS) and key != HEADERS)

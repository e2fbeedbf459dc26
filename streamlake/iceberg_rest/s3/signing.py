"""Signs requests to the object store for clients that have no key: SigV4, as remote signing in Iceberg's REST catalog.

A signature is the server's own word to the store, so each request is one that reads, writes, deletes or lists below the
location of one table, and nothing else: exact host, exact bucket, plain key, known parameters, known headers. What is
not known is refused, as it may do more (a copy from another key, an access list, a policy).

A deletion of several objects has their keys in its body. Its signature has the hash of that body, but not every store
compares the two: at one that does not, a client could have any object deleted. So the store is tried first.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit
from xml.etree import ElementTree

import requests
from pydantic import BaseModel, Field

from streamlake.iceberg_rest.errors import bad_request
from streamlake.iceberg_rest.problem import Problem
from streamlake.iceberg_rest.s3.place import Place, is_plain
from streamlake.iceberg_rest.s3.store import Store, host_of

URI_CHARS_MAX = 8192
HEADERS_MAX = 100
DELETED_KEYS_MAX = 1000  # of one request, as in S3
PROBE_TIMEOUTS_S = (5.0, 10.0)  # to connect, to answer
PAYLOAD = "x-amz-content-sha256"
UNSIGNED, UNSIGNED_TRAILER = "UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_PAYLOADS = re.compile(f"[0-9a-f]{{64}}|{UNSIGNED}|{UNSIGNED_TRAILER}")
# Stores differ in what a plus or a semicolon means: clients encode them.
_PATH = re.compile(r"[A-Za-z0-9\-._~!$&'()*,=:@/%]*")
_QUERY = re.compile(r"[A-Za-z0-9\-._~=&/%]*")
_OURS = frozenset({"authorization", "x-amz-date", "x-amz-security-token"})  # set here, whatever the client says
_KNOWN_HEADERS = re.compile(
    r"content-md5|x-amz-(content-sha256|decoded-content-length|trailer|te|user-agent|sdk-checksum-algorithm"
    r"|storage-class|mp-object-size|checksum-[a-z0-9-]+|meta-[a-z0-9._-]+|server-side-encryption(-[a-z0-9-]+)?)"
)
_LISTING = frozenset(
    {"list-type", "prefix", "delimiter", "max-keys", "continuation-token"}
    | {"start-after", "encoding-type", "fetch-owner", "x-id"}
)
# By method: the parameters that go together, `x-id` aside, which says nothing. Of an object.
_OF_OBJECTS: Mapping[str, tuple[frozenset[str], ...]] = {
    "GET": (frozenset(), frozenset({"partNumber"})),
    "HEAD": (frozenset(), frozenset({"partNumber"})),
    "PUT": (frozenset(), frozenset({"partNumber", "uploadId"})),
    "POST": (frozenset({"uploads"}), frozenset({"uploadId"})),
    "DELETE": (frozenset(), frozenset({"uploadId"})),
}


class SignRequest(BaseModel):
    region: str = Field(pattern=r"^[a-z0-9-]{0,50}$")
    uri: str = Field(max_length=URI_CHARS_MAX)
    method: str
    headers: dict[str, list[str]] = Field(max_length=HEADERS_MAX)
    body: str | None = None  # of a deletion of several objects


@dataclass(frozen=True, slots=True)
class _Target:
    key: str  # empty: the bucket itself
    query: Mapping[str, str]


class Signer:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._compares_bodies: bool | None = None  # not known yet

    def sign(self, place: Place, asked: SignRequest) -> dict[str, list[str]]:
        """The headers that make the request one of the server's. Raises Problem. Blocks."""
        target = _target(self._store, place, asked.uri)
        _check_operation(place, asked, target)
        headers = _headers(asked)
        headers[PAYLOAD] = _payload(asked, target, headers)
        if not target.key and asked.method == "POST":
            self._check_deletion(place, asked.uri)
        found = _signed(self._store, asked.method, asked.uri, headers)
        given = {name.lower() for name in asked.headers} - _OURS
        return {name: [value] for name, value in found.items() if name.lower() not in given}

    def _check_deletion(self, place: Place, uri: str) -> None:
        if self._compares_bodies is None:
            self._compares_bodies = _compares_bodies(self._store, place, uri)
        if not self._compares_bodies:
            raise _refused("a deletion of several objects: this store does not compare its body with the signature")


def _target(store: Store, place: Place, uri: str) -> _Target:
    """Of a URL that is at the store of the catalog, and in the bucket of the table."""
    url = _split(uri)
    for scheme, host, base in store.addresses(place.bucket):
        if (url.scheme, host_of(url)) != (scheme, host):
            continue
        if url.path.startswith(base):  # as it was sent: no bucket needs an encoding
            return _Target(_decoded(url.path.removeprefix(base)), _query(url.query))
        if url.path == base.removesuffix("/"):
            return _Target("", _query(url.query))
    raise _refused("the URL is not in the bucket of the table, at the address that this catalog has for it")


def _split(uri: str) -> SplitResult:
    try:
        url = urlsplit(uri)
        _ = url.port  # raises ValueError for what is no number
    except ValueError:
        raise bad_request("uri is no URL") from None
    # urlsplit drops line breaks and tabs: what is signed must be what was looked at.
    is_plain_url = url.geturl() == uri and "@" not in url.netloc and "#" not in uri
    if not is_plain_url or not _PATH.fullmatch(url.path) or not _QUERY.fullmatch(url.query):
        raise bad_request("uri must be a plain URL: without user and fragment, path and query percent-encoded")
    return url


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise bad_request("uri is not UTF-8 behind its percent signs") from None


def _query(query: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in query.split("&") if part]
    found = {_decoded(name): _decoded(value) for name, _, value in pairs}
    if len(found) != len(pairs):
        raise bad_request("uri has a parameter twice")
    return found


def _check_operation(place: Place, asked: SignRequest, target: _Target) -> None:
    parameters = target.query.keys() - {"x-id"}
    if not target.key:
        if asked.method == "GET" and target.query.get("list-type") == "2" and parameters <= _LISTING:
            _check_folder(place, target.query.get("prefix", ""))
            return
        if asked.method == "POST" and parameters == {"delete"}:
            for key in _deleted_keys(_body(asked)):
                _check_key(place, key)
            return
        raise _refused(f"{asked.method} of a bucket with {_named(parameters)}")
    _check_key(place, target.key)
    if parameters not in _OF_OBJECTS.get(asked.method, ()):
        raise _refused(f"{asked.method} of an object with {_named(parameters)}")


def _named(parameters: Any) -> str:
    return ", ".join(sorted(parameters))[:200] or "no parameters"


def _check_folder(place: Place, prefix: str) -> None:
    if not prefix.startswith(place.prefix) or not is_plain(prefix.removesuffix("/")):
        raise _refused(f"a list of {prefix[:200]!r}, which is not below the location of the table")


def _check_key(place: Place, key: str) -> None:
    if not place.holds(key):
        raise _refused(f"the key {key[:200]!r} is not below the location of the table")


def _headers(asked: SignRequest) -> dict[str, str]:
    """Those that are signed: all that the store may act on. Others, such as Range, may change from try to try."""
    found = {}
    for name, values in asked.headers.items():
        name = name.lower()
        if (not name.startswith("x-amz-") and name != "content-md5") or name in _OURS:
            continue
        if not _KNOWN_HEADERS.fullmatch(name):
            raise _refused(f"the header {name[:100]}")
        if len(values) != 1 or name in found or not values[0].isprintable():
            raise bad_request(f"the header {name[:100]} must have one value")
        found[name] = values[0]
    return found


def _payload(asked: SignRequest, target: _Target, headers: Mapping[str, str]) -> str:
    """What the signature says of the body."""
    given = headers.get(PAYLOAD)
    if given is not None and not _PAYLOADS.fullmatch(given):
        raise _refused(f"the header {PAYLOAD} must be a SHA-256 in hex, {UNSIGNED} or {UNSIGNED_TRAILER}")
    if target.key or asked.method != "POST":
        return given or (UNSIGNED_TRAILER if "x-amz-trailer" in headers else UNSIGNED)
    computed = hashlib.sha256(_body(asked).encode()).hexdigest()  # these keys and no others
    if given not in (None, computed):
        raise _refused(f"a deletion of several objects whose header {PAYLOAD} is not the SHA-256 of its body")
    return computed


def _body(asked: SignRequest) -> str:
    if asked.body is None:
        raise bad_request("a deletion of several objects is signed with its body: send it as `body`")
    return asked.body


def _deleted_keys(body: str) -> list[str]:
    """Of a request DeleteObjects."""
    try:
        if "<!" in body:  # entities and the like: S3 has no use for them
            raise ValueError
        root = ElementTree.fromstring(body)
    except (ValueError, ElementTree.ParseError):
        raise bad_request("body is not the XML of DeleteObjects") from None
    names = [element.tag.rpartition("}")[2] for element in root.iter()]
    keys = [element for element, name in zip(root.iter(), names, strict=True) if name == "Key"]
    if not 1 <= len(keys) <= DELETED_KEYS_MAX or "VersionId" in names or any(len(key) for key in keys):
        raise _refused(f"a deletion must name 1 to {DELETED_KEYS_MAX} keys, and no versions of them")
    return [key.text or "" for key in keys]


def _compares_bodies(store: Store, place: Place, uri: str) -> bool:
    """Send a deletion whose body is not the signed one. Both name a key that nobody has, so nothing is deleted."""
    body, other = (f"<Delete><Object><Key>{place.prefix}.streamlake-{n}</Key></Object></Delete>" for n in (1, 2))
    headers = _signed(store, "POST", uri, {PAYLOAD: hashlib.sha256(body.encode()).hexdigest()})
    try:
        answer = requests.post(uri, other.encode(), headers=headers, timeout=PROBE_TIMEOUTS_S, allow_redirects=False)
    except requests.RequestException:
        raise Problem(503, "ServiceUnavailableException", "the object store cannot be reached by the server") from None
    return answer.status_code == 400 and b"XAmzContentSHA256Mismatch" in answer.content


def _signed(store: Store, method: str, uri: str, headers: Mapping[str, str]) -> dict[str, str]:
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest

    class Auth(S3SigV4Auth):  # type: ignore[misc]
        def payload(self, request: Any) -> str:
            return headers[PAYLOAD]

    found = store.session().get_credentials()
    if found is None:
        raise Problem(503, "ServiceUnavailableException", "the server has no key of its own to the store")
    request = AWSRequest(method=method, url=uri, headers=dict(headers))
    Auth(found.get_frozen_credentials(), "s3", store.region).add_auth(request)
    return dict(request.headers.items())


def _refused(what: str) -> Problem:
    return Problem(403, "ForbiddenException", f"not signed: {what}")

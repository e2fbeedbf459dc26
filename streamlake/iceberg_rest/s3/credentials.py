"""Keys that end by themselves and open one folder: a role, narrowed down by a session policy, by STS AssumeRole."""

import json
import threading
from collections import OrderedDict
from typing import Any

import structlog
from pyiceberg.io import S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY, S3_SESSION_TOKEN

from streamlake.core.clock import Clock
from streamlake.iceberg_rest.problem import Problem
from streamlake.iceberg_rest.s3.place import Place
from streamlake.iceberg_rest.s3.store import Store
from streamlake.table.task.control import S3AccessSettings

log = structlog.get_logger(__name__)

LIFETIME_S = 3600
KEPT_MAX = 1000
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5, 10
SESSION = "streamlake"
EXPIRES_AT = "s3.session-token-expires-at-ms"
OBJECT_ACTIONS = (
    "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts",
)  # fmt: skip
_OF_POLICIES = frozenset("*?$")  # stand for other characters in a policy


class ShortLived:
    """Those of one place are kept and given again while they have half of their time. Blocks."""

    def __init__(self, store: Store, settings: S3AccessSettings, clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[Place, dict[str, str]] = OrderedDict()

    def for_place(self, place: Place) -> dict[str, str]:
        """Properties of a client. Raises Problem."""
        with self._lock:
            kept = self._kept.get(place)
        if kept is None or int(kept[EXPIRES_AT]) - self._clock.now_ms() < LIFETIME_S * 500:
            kept = self._assume(place)
            with self._lock:
                self._kept[place] = kept
                self._kept.move_to_end(place)
                while len(self._kept) > KEPT_MAX:
                    self._kept.popitem(last=False)
        return dict(kept)

    def _assume(self, place: Place) -> dict[str, str]:
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        limits = Config(connect_timeout=CONNECT_TIMEOUT_S, read_timeout=READ_TIMEOUT_S, retries={"max_attempts": 1})
        policy = json.dumps(policy_of(place, self._settings.sts_role))
        try:
            endpoint = self._settings.sts_endpoint or None
            sts = self._store.session().client(
                "sts", region_name=self._store.region, endpoint_url=endpoint, config=limits
            )
            found: dict[str, Any] = sts.assume_role(
                RoleArn=self._settings.sts_role, RoleSessionName=SESSION, Policy=policy, DurationSeconds=LIFETIME_S
            )["Credentials"]
        except (BotoCoreError, ClientError) as error:
            log.warning("no short-lived credentials: check http.sts_role, http.sts_endpoint and the key of the catalog",
                reason=str(error))  # fmt: skip
            text = "short-lived credentials cannot be had now: the server's log says why"
            raise Problem(503, "ServiceUnavailableException", text) from None
        return {
            S3_ACCESS_KEY_ID: found["AccessKeyId"],
            S3_SECRET_ACCESS_KEY: found["SecretAccessKey"],
            S3_SESSION_TOKEN: found["SessionToken"],
            EXPIRES_AT: str(round(found["Expiration"].timestamp() * 1000)),
        }


def can_be_named(place: Place) -> bool:
    """In a policy, as it is and nothing else: a client chooses where its tables are."""
    return not _OF_POLICIES & set(place.bucket + place.prefix)


def policy_of(place: Place, role: str) -> dict[str, Any]:
    partition = role.split(":")[1]  # China and governments have clouds of their own
    bucket = f"arn:{partition}:s3:::{place.bucket}"
    below = f"{place.prefix}*"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": list(OBJECT_ACTIONS), "Resource": f"{bucket}/{below}"},
            {"Effect": "Allow", "Action": "s3:GetBucketLocation", "Resource": bucket},
            {
                "Effect": "Allow",
                "Action": "s3:ListBucket",
                "Resource": bucket,
                "Condition": {"StringLike": {"s3:prefix": [below]}},
            },
        ],
    }

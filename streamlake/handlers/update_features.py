"""UpdateFeatures (57): no feature can be changed, and to set the level that it has is no change.

Behavior: levels of features (api_versions.py) follow from the release of the brokers. An update that would change one
fails the whole request (INVALID_UPDATE_VERSION), which changes nothing, as in Kafka.
Version notes: one result per feature until version 1, none from 2.
"""

from streamlake.handlers.api_versions import FINALIZED
from streamlake.handlers.context import Context, Exchange
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.update_features import (
    FeatureUpdateKey,
    UpdatableFeatureResult,
    UpdateFeaturesRequest,
    UpdateFeaturesResponse,
)

UPGRADE_TYPES = (1, 2, 3)  # upgrade, safe downgrade, unsafe downgrade


async def handle(ctx: Context, exchange: Exchange) -> UpdateFeaturesResponse:
    request: UpdateFeaturesRequest = exchange.body
    for update in request.feature_updates:
        if refused := _refusal(update):
            return UpdateFeaturesResponse(error_code=ErrorCode.INVALID_UPDATE_VERSION, error_message=refused)
    done = ErrorCode.NONE
    results = (UpdatableFeatureResult(each.feature, done, done.message) for each in request.feature_updates)
    return UpdateFeaturesResponse(results=tuple(results))


def _refusal(update: FeatureUpdateKey) -> str | None:
    levels = {feature.name: feature.max_version_level for feature in FINALIZED}
    level = levels.get(update.feature)
    if level is None:
        return f"{update.feature[:100]!r} is not a feature of this cluster, which has {', '.join(levels)}"
    if update.upgrade_type not in UPGRADE_TYPES:
        return f"{update.upgrade_type} is not a type of upgrade: use one of 1, 2 and 3"
    if update.max_version_level != level:
        return f"{update.feature} is at level {level}, which the release of the brokers decides: it cannot be set"
    return None

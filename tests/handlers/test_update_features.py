"""UpdateFeatures: features have the level that they have."""

import pytest
from support.wire import SERVED, Client

from streamlake.handlers.api_versions import FINALIZED
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.update_features import FeatureUpdateKey, UpdateFeaturesRequest

LEVELS = tuple(FeatureUpdateKey(f.name, f.max_version_level) for f in FINALIZED)


@pytest.mark.parametrize("version", SERVED[ApiKey.UPDATE_FEATURES])
def test_the_levels_that_are(client: Client, version: int) -> None:
    answer = client.ask(ApiKey.UPDATE_FEATURES, version, UpdateFeaturesRequest(feature_updates=LEVELS))
    assert answer.error_code == 0
    named = [f.name for f in FINALIZED] if version < 2 else []
    assert [(result.feature, result.error_code) for result in answer.results] == [(name, 0) for name in named]


@pytest.mark.parametrize(
    ("update", "says"),
    [
        (FeatureUpdateKey("transaction.version", 1, upgrade_type=2), "at level 2"),
        (FeatureUpdateKey("transaction.version", 2, upgrade_type=9), "not a type of upgrade"),
        (FeatureUpdateKey("metadata.version", 30), "not a feature of this cluster"),
        (FeatureUpdateKey("", 1), "not a feature of this cluster"),
    ],
)
def test_any_other(client: Client, update: FeatureUpdateKey, says: str) -> None:
    """One that is refused refuses them all."""
    answer = client.newest(ApiKey.UPDATE_FEATURES, UpdateFeaturesRequest(feature_updates=(*LEVELS, update)))
    assert (answer.error_code, answer.results) == (ErrorCode.INVALID_UPDATE_VERSION, ())
    assert says in answer.error_message

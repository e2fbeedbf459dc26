from dataclasses import asdict

from streamlake.config import Groups
from streamlake.coordinator.settings import GroupSettings


def test_defaults_are_those_of_the_configuration():
    ours = asdict(GroupSettings())
    configurable = Groups().model_dump()
    assert {key: ours[key] for key in configurable} == configurable

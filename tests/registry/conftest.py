"""A registry on the real metadata store."""

from support.registry_fixtures import *  # noqa: F403

"""Poke (20001), version 0: the metadata store has this revision. Whoever is behind looks."""

from typing import Annotated

from msgspec import Struct


class PokeRequest(Struct, frozen=True):
    revision: Annotated[int, "int64 0+"] = -1


class PokeResponse(Struct, frozen=True):
    error_code: Annotated[int, "int16 0+"] = 0


KEY = 20_001
VERSIONS = range(1)
FLEXIBLE_FROM = 0
REQUEST = PokeRequest
RESPONSE = PokeResponse

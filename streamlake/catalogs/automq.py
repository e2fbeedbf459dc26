"""AutoMQ's broker properties `automq.table.topic.catalog.*`, as one of our catalogs.

They are the properties of Iceberg's Java library. Most have the same name in PyIceberg; those that have not are
translated, those that only Java needs are left out, and any other is refused like every unknown key.
"""

from collections.abc import Mapping
from typing import Any

from streamlake.core.errors import Invalid

PREFIX = "automq.table.topic.catalog."
NAME = "automq"  # of the catalog
_KINDS = {"rest": "rest", "glue": "glue", "hive": "hive", "tablebucket": "s3tables"}
_OF_JAVA = ("io-impl", "catalog-impl", "client.credentials-provider", "clients", "cache-enabled")


def catalog(broker: Mapping[str, str]) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """The keys of a catalog file, None if there is no catalog in these broker properties; and the other properties.
    Invalid names the property."""
    given = {key.removeprefix(PREFIX): value for key, value in broker.items() if key.startswith(PREFIX)}
    rest = {key: value for key, value in broker.items() if not key.startswith(PREFIX)}
    if not given:
        return None, rest
    kind = given.pop("type", "")
    if kind == "nessie":
        raise Invalid(f"{PREFIX}type is nessie: use rest, and Nessie's Iceberg REST address as {PREFIX}uri, …/iceberg")
    if kind not in _KINDS:
        raise Invalid(f"{PREFIX}type is {kind[:100]!r}: it must be one of {', '.join(_KINDS)}")
    return {"kind": _KINDS[kind], "properties": dict(_translated(given))}, rest


def _translated(given: Mapping[str, str]) -> Mapping[str, str]:
    properties = {key: value for key, value in given.items() if key not in _OF_JAVA}
    style = properties.pop("s3.path-style-access", None)
    if style is not None:  # PyIceberg's key says the opposite
        properties["s3.force-virtual-addressing"] = "false" if style.strip().lower() == "true" else "true"
    return properties

"""What a table shows of a Protobuf message, by the message itself: the oracle of both readers."""

import base64
import datetime as dt
import json
from decimal import Decimal
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor as F

NOTHING = object()  # no column
JSON = ("google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue", "google.protobuf.Any")
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class NotShown(Exception):
    """No column holds it: a dead letter."""


def message(value: Any, pool: Any) -> Any:
    """By segments, as Arrow has it; NOTHING if the type has no columns."""
    name = value.DESCRIPTOR.full_name
    if name == "google.protobuf.Timestamp":
        return _timestamp(value)
    if name in JSON:
        return _json(value, pool)
    if name.startswith("google.protobuf.") and name.endswith("Value"):
        return _single(value.DESCRIPTOR.fields_by_name["value"], value.value, pool)
    shown = {f"#{field.number}": _field(value, field, pool) for field in value.DESCRIPTOR.fields}
    return {key: found for key, found in shown.items() if found is not NOTHING} or NOTHING


def _field(value: Any, field: Any, pool: Any) -> Any:
    found = getattr(value, field.name)
    if field.is_repeated:
        if field.message_type and field.message_type.GetOptions().map_entry:
            key, item = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
            return [(_single(key, k, pool), _single(item, found[k], pool)) for k in found]
        return [_single(field, item, pool) for item in found]
    if field.has_presence and not value.HasField(field.name):
        return NOTHING if _single(field, found, pool) is NOTHING else None
    return _single(field, found, pool)


def _single(field: Any, value: Any, pool: Any) -> Any:
    if field.message_type:
        return message(value, pool)
    if field.type in (F.TYPE_UINT64, F.TYPE_FIXED64):
        return Decimal(value)
    if field.type == F.TYPE_ENUM:
        names = [known.name for known in field.enum_type.values if known.number == value]
        return names[0] if names else str(value)
    return value


def _timestamp(value: Any) -> dt.datetime:
    if not 0 <= value.nanos < 10**9:
        raise NotShown
    try:
        return EPOCH + dt.timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)
    except OverflowError:
        raise NotShown from None


def _json(value: Any, pool: Any) -> str:
    try:
        tree = json_format.MessageToDict(value, descriptor_pool=pool)
    except json_format.Error:
        raise NotShown from None
    except Exception:
        if value.DESCRIPTOR.full_name != "google.protobuf.Any":
            raise NotShown from None
        tree = {"@type": value.type_url, "value": base64.b64encode(value.value).decode()}
    return json.dumps(tree, sort_keys=True, ensure_ascii=False, separators=(",", ":"))

"""Random messages made of kio's classes, kio's bytes for them, and whether ours says the same: the codec's oracle."""

import dataclasses
import datetime
import io
import random
import uuid
from collections.abc import Iterator
from types import UnionType
from typing import Any, get_args, get_origin

from kio.index import load_entity_schema
from kio.schema.errors import ErrorCode as KioErrorCode
from kio.serial import entity_writer
from kio.static.constants import EntityType

from streamlake.protocol.requests import Api

CODES = list(KioErrorCode)
EPOCH = datetime.datetime.fromtimestamp(0, datetime.UTC)


def entities(api: Api) -> Iterator[tuple[int, type, type]]:
    """(version, our class, kio's class) of both sides in all versions."""
    for version in api.versions:
        yield version, api.request, load_entity_schema(api.name, version, EntityType.request)
        yield version, api.response, load_entity_schema(api.name, version, EntityType.response)


def kio_bytes(entity: Any) -> bytes:
    out = io.BytesIO()
    entity_writer(type(entity))(out, entity)
    return out.getvalue()


def shape(annotation: Any) -> tuple[Any, bool, bool]:
    """-> (element type, is an array, may be null)."""
    may_be_null = is_array = False
    if get_origin(annotation) is UnionType:
        may_be_null = True
        annotation = next(t for t in get_args(annotation) if t is not type(None))
    if get_origin(annotation) is tuple:
        is_array, annotation = True, get_args(annotation)[0]
    return annotation, is_array, may_be_null


def random_value(kind: str, rng: random.Random) -> Any:
    if kind.startswith(("int", "uint")):
        signed, bits = kind.startswith("int"), int(kind.lstrip("uint"))
        return rng.choice([0, rng.getrandbits(bits) - (1 << (bits - 1) if signed else 0)])
    match kind:
        case "string":
            return "".join(rng.choice("abé漢") for _ in range(rng.choice([0, 1, 5, 200])))
        case "bytes" | "records":
            return rng.randbytes(rng.choice([0, 3, 300, 5000]))
        case "bool":
            return rng.random() < 0.5
        case "uuid":
            return None if rng.random() < 0.3 else uuid.UUID(bytes=rng.randbytes(16))
        case "error_code":
            return rng.choice(CODES)
        case "float64":
            return rng.random()
        case "timedelta_i32":
            return datetime.timedelta(milliseconds=rng.randrange(-(2**31), 2**31))
        case "timedelta_i64":
            return datetime.timedelta(milliseconds=rng.randrange(-(2**40), 2**40))
        case "datetime_i64":
            return EPOCH + datetime.timedelta(seconds=rng.randrange(2**31))
    raise AssertionError(kind)


def random_entity(entity: type, rng: random.Random) -> Any:
    values = {}
    for f in dataclasses.fields(entity):
        element, is_array, may_be_null = shape(f.type)
        is_tagged = f.metadata.get("tag") is not None
        if is_tagged and f.default is not dataclasses.MISSING and rng.random() < 0.4:
            continue
        if may_be_null and not is_tagged and rng.random() < 0.3:
            values[f.name] = None
        elif is_array:
            values[f.name] = tuple(random_element(f, element, rng) for _ in range(rng.choice([0, 1, 3])))
        else:
            values[f.name] = random_element(f, element, rng)
    return entity(**values)


def random_element(f: "dataclasses.Field[Any]", element: Any, rng: random.Random) -> Any:
    if dataclasses.is_dataclass(element):
        return random_entity(element, rng)
    return random_value(f.metadata["kafka_type"], rng)


def assert_same(ours: Any, theirs: Any) -> None:
    """Every field of kio's object stands in ours under its name, with the same value."""
    for f in dataclasses.fields(theirs):
        value, kind = getattr(theirs, f.name), f.metadata.get("kafka_type", "struct")
        is_time = kind.startswith(("timedelta", "datetime"))
        mine = getattr(ours, f.name + "_ms" if is_time else f.name)
        if kind.startswith("timedelta"):
            value = value // datetime.timedelta(milliseconds=1)
        elif kind.startswith("datetime"):
            value = -1 if value is None else (value - EPOCH) // datetime.timedelta(milliseconds=1)
        if isinstance(value, tuple) and isinstance(mine, tuple) and value and dataclasses.is_dataclass(value[0]):
            assert len(mine) == len(value)
            for a, b in zip(mine, value, strict=True):
                assert_same(a, b)
        elif dataclasses.is_dataclass(value):
            assert_same(mine, value)
        else:
            assert mine == value, f"{type(ours).__name__}.{f.name}"

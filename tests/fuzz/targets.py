"""All targets by name, and the inputs that once failed."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fuzz import (
    avro_targets,
    control_targets,
    json_targets,
    protobuf_targets,
    record_targets,
    registry_targets,
    server_targets,
    storage_targets,
    wire_targets,
)
from fuzz.target import Target

REGRESSIONS = Path(__file__).parent / "regressions"

_MODULES = (
    wire_targets,
    record_targets,
    avro_targets,
    protobuf_targets,
    json_targets,
    registry_targets,
    storage_targets,
    control_targets,
    server_targets,
)
TARGETS: dict[str, Target] = {target.name: target for module in _MODULES for target in module.TARGETS}


@dataclass(frozen=True)
class Regression:
    """A file of three lines: what went wrong, the target, the input as base64."""

    what: str
    target: Target
    data: bytes

    @property
    def text(self) -> str:
        return f"# {self.what}\n{self.target.name}\n{base64.b64encode(self.data).decode()}\n"


def read(path: Path) -> Regression:
    what, name, data = path.read_text().splitlines()[:3]
    return Regression(what.removeprefix("# "), TARGETS[name], base64.b64decode(data))


def regressions() -> Iterator[Path]:
    yield from sorted(REGRESSIONS.glob("*.txt"))

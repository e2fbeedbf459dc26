"""The text of a .proto file, or a FileDescriptorProto in base64 → a Parsed schema, by protoc.

Runs in the helper process (helper.py), which has limits: protoc is C++ and the text a stranger's.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from streamlake.core.errors import Invalid
from streamlake.registry.port import File, Parsed
from streamlake.registry.protobuf.files import WELL_KNOWN, main_name, plain, pool_of, read_foreign, with_imports
from streamlake.registry.protobuf.printing import proto_text

COMPILED_BYTES_MAX = 4 * 1024 * 1024

_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+=?\s*=?\s*")  # no .proto file is that: it has a semicolon or a brace
_GOOGLE = Path(grpc_tools.__file__).parent / "_proto"


class Refused(Exception):
    """protoc has said why on stderr."""


def parse(text: str, files: Mapping[str, File], normalize: bool, folder: Path) -> Parsed:
    """`folder` is empty. Raises Invalid, and Refused."""
    described = _described(text)
    if described is None:
        compiled = _compile(text, files, folder)
    else:
        text = proto_text(described, pool_of([*with_imports(described.SerializeToString(), files)]))
        compiled = _compile(text, files, folder)
        if compiled != plain(described):
            raise Invalid("the descriptor says what no .proto file can say: register the text of the file instead")
    found = [*with_imports(compiled, files)]
    canonical = proto_text(found[-1], pool_of(found), normalize)
    return Parsed(canonical if normalize else text, canonical, compiled)


def _described(text: str) -> FileDescriptorProto | None:
    """The descriptor, if the text is one."""
    if not _BASE64.fullmatch(text):
        return None
    try:
        return read_foreign(base64.b64decode("".join(text.split()), validate=True))
    except (binascii.Error, Invalid) as error:
        raise Invalid(f"neither the text of a .proto file nor a FileDescriptorProto in base64: {error}") from None


def _compile(text: str, files: Mapping[str, File], folder: Path) -> bytes:
    name = main_name(files)
    for path, content in {**{path: file.text for path, file in files.items()}, name: text}.items():
        if path not in WELL_KNOWN:
            _write(folder / path, content)
    out = folder / "compiled"
    if protoc.main(["protoc", f"-I{folder}", f"-I{_GOOGLE}", f"--descriptor_set_out={out}", str(folder / name)]):
        raise Refused
    compiled = plain(FileDescriptorSet.FromString(out.read_bytes()).file[-1])
    if len(compiled) > COMPILED_BYTES_MAX:
        raise Invalid(f"the schema has more than {COMPILED_BYTES_MAX:,} bytes when it is compiled")
    return compiled


def _write(path: Path, content: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise Invalid(f"{path.name} cannot be written as a file: {error.__class__.__name__}") from None

"""Style is a test: what a reader may count on everywhere in this repository."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "streamlake"
GENERATED = PACKAGE / "protocol" / "messages"

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500

# Modules that other tests prove, with the test that does it.
TESTED_ELSEWHERE = {
    "core/errors.py": "tests/core/test_errors.py",
    "s3stream/store/port.py": "tests/contracts/objectstore_contract.py",
    "s3stream/wal/port.py": "tests/contracts/wal_contract.py",
    "s3stream/metadata.py": "tests/contracts/stream_metadata_contract.py",
    "table/formats/port.py": "tests/table/formats/test_kinds.py",
    "table/commit/tools.py": "tests/table/task/test_task.py",
    "core/placed.py": "tests/handlers/test_produce_runs.py",
    "broker/services.py": "tests/broker/test_process.py",
}


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if GENERATED not in p.parents and "migrations" not in p.parts)


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= FILE_LINES_MAX, f"{path} is longer than {FILE_LINES_MAX} lines: split it"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{path}:{node.lineno} {node.name} has {lines} lines: split it"


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


@pytest.mark.parametrize("path", [p for p in modules() if p.name != "__init__.py"], ids=relative)
def test_every_module_has_a_test_module(path: Path) -> None:
    name = relative(path)
    mirror = ROOT / "tests" / Path(name).parent / f"test_{Path(name).name}"
    elsewhere = TESTED_ELSEWHERE.get(name)
    assert mirror.exists() or (elsewhere and (ROOT / elsewhere).exists()), f"write {mirror.relative_to(ROOT)}"


def test_tested_elsewhere_names_only_what_exists() -> None:
    for module, test in TESTED_ELSEWHERE.items():
        assert (PACKAGE / module).exists(), f"{module} is gone: drop it from the list"
        assert (ROOT / test).exists(), f"{test} is gone"


def test_every_byte_format_is_documented() -> None:
    """A module that defines a MAGIC writes bytes that outlive it: a page in docs/formats names the module."""
    pages = "\n".join(p.read_text() for p in (ROOT / "docs" / "formats").glob("*.md"))
    for path in modules():
        if re.search(r"^_?[A-Z_]*MAGIC\b", path.read_text(), re.MULTILINE):
            assert f"streamlake/{relative(path)}" in pages, f"{path} defines a format that docs/formats does not name"


def test_every_handler_is_listed() -> None:
    """handlers/apis.py is THE list: a handler module it does not import would be dead code."""
    listed = (PACKAGE / "handlers" / "apis.py").read_text()
    for path in (PACKAGE / "handlers").glob("*.py"):
        if re.search(r"^async def handle\(", path.read_text(), re.MULTILINE):
            assert re.search(rf"\b{path.stem}\b", listed), f"{path.name} is not in handlers/apis.py"


def test_no_unfinished_marks() -> None:
    for path in [*modules(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]:
        if path == Path(__file__):
            continue
        found = re.search(r"\b(TODO|FIXME|XXX|HACK)\b", path.read_text())
        assert not found, f"{path} has an unfinished mark: {found.group() if found else ''}"


WAIT = re.compile(
    r"(?<!mark\.)\b(?:timeout=|(?:result|flush|join|wait|timeout)\(|(?:monotonic|perf_counter)\(\) \+ )\d[\d_]+\b(?! \*)"
)


@pytest.mark.parametrize(
    "wait", ["timeout=60)", "f.result(20)", "monotonic() + 30", "asyncio.timeout(10)", "flush(30_000)"]
)
def test_waits_are_told_from_what_is_none(wait: str) -> None:
    assert WAIT.search(wait)
    assert not WAIT.search(re.sub(r"[\d_]+", "DEADLINE_S", wait)) and not WAIT.search("mark.timeout(1200)")


def test_tests_wait_with_the_one_deadline() -> None:
    """Ten seconds here and thirty there are too short on a busy machine. Simulated time needs no patience."""
    simulated = [ROOT / "tests" / folder for folder in ("simulation", "coordinator")]
    for path in (ROOT / "tests").rglob("*.py"):
        if path != Path(__file__) and not any(folder in path.parents for folder in simulated):
            found = WAIT.search(path.read_text())
            assert not found, f"{path}: {found.group() if found else ''}: wait for DEADLINE_S of tests/support/wait.py"


def test_compatibility_page_names_every_api() -> None:
    from streamlake.handlers.apis import HANDLERS

    page = (ROOT / "docs" / "compatibility.md").read_text()
    for handler in HANDLERS:
        row = f"| {handler.api.key} | {handler.api.name} | {handler.api.advertised_min}-{handler.api.versions[-1]} |"
        assert row in page, f"docs/compatibility.md lacks: {row}"

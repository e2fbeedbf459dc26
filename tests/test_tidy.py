"""Style is a test: what a reader may count on everywhere in this repository."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
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
    "core/deferred_buffer.py": "tests/record/test_run.py",
    "broker/broker.py": "tests/broker/test_process.py",
    "protocol/broker_messages/hello.py": "tests/peers/test_brokers.py",
    "protocol/broker_messages/poke.py": "tests/peers/test_brokers.py",
    "protocol/broker_messages/write_markers.py": "tests/handlers/test_write_markers.py",
    "log/transactions_port.py": "tests/handlers/test_verification.py",
    "protocol/broker_messages/join_transactions.py": "tests/peers/test_brokers.py",
    "table/formats/port.py": "tests/table/formats/test_kinds.py",
    "registry/port.py": "tests/registry/test_kinds.py",
    "table/commit/tools.py": "tests/table/task/test_task.py",
    "coordinator/machine.py": "tests/coordinator/test_shell.py",
    "broker/services.py": "tests/broker/test_process.py",
    "table/rows/type_text.py": "tests/table/rows/test_hive_types.py",
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


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_paths_that_the_pages_name_exist(page: str) -> None:
    """In `code`: below the repository, or below streamlake/. `{a,b}` are alternatives, `<x>` is anything."""
    missing = []
    for name in re.findall(r"`([\w{},.<>*-]+(?:/[\w{},.<>*-]+)+/?|\w+\.(?:py|md|toml))`", (ROOT / page).read_text()):
        choices = re.search(r"\{(.*?)\}", name)
        for choice in choices[1].split(",") if choices else [""]:
            pattern = re.sub(r"<\w+>", "*", re.sub(r"\{.*?\}", choice, name)).rstrip("/")
            if not any(any(base.glob(pattern)) for base in (ROOT, PACKAGE, PACKAGE / "handlers")):
                missing.append(pattern)
    assert not missing, f"{page} names what is not there"


def test_every_handler_is_listed() -> None:
    """handlers/apis.py is THE list: a handler module it does not import would be dead code."""
    listed = (PACKAGE / "handlers" / "apis.py").read_text()
    for path in (PACKAGE / "handlers").glob("*.py"):
        if re.search(r"^async def handle\(", path.read_text(), re.MULTILINE):
            assert re.search(rf"\b{path.stem}\b", listed), f"{path.name} is not in handlers/apis.py"


# Public names that the product does not read, and why they stay.
UNREAD = {
    "magic": "a field of a batch header, all of which are named in wire order",
    "InlineExecutor": "what a simulated machine has instead of threads",
    **dict.fromkeys(("wait_for", "catalog_uri"), "for the users of streamlake.local()"),
    "last_commit_duration_ms": "the worker reports it: for the metrics of tables",
    # Counters without a metric: export them or delete them.
    **dict.fromkeys(("replayed_records", "recovered_streams", "written_bytes", "cache_bytes", "wal_bytes"), "s3stream"),
    **dict.fromkeys(("merges", "files_removed"), "table"),
}
OWN_BASES = {
    "Struct",
    "msgspec.Struct",
    "NamedTuple",
    "Protocol",
    "Generic",
    "Exception",
}  # no library calls methods of these by name


def reads(tree: ast.AST) -> tuple[Counter[str], Counter[str]]:
    """How often each name, and each attribute, is read. Strings of one word count as both: getattr and __all__."""
    names: Counter[str] = Counter()
    attributes: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            names[node.id] += 1
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            attributes[node.attr] += 1
        elif isinstance(node, ast.MatchClass):
            attributes.update(node.kwd_attrs)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            words = re.findall(r"\w+", node.value)
            names.update(words)
            attributes.update(words)
    return names, attributes


def targets(node: ast.AST) -> Iterator[ast.expr]:
    """What a statement assigns to."""
    if isinstance(node, ast.Assign | ast.AnnAssign):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            yield from target.elts if isinstance(target, ast.Tuple) else [target]


def definitions(tree: ast.Module) -> Iterator[tuple[str, ast.AST, bool]]:
    """Public names with what defines them, and whether they are attributes. Not those that a decorator hands on to
    somebody, members of an Enum, and what a class of a library may look up in a class that is made of it."""
    local = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    local |= {
        name.asname or name.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("streamlake")
        for name in node.names
    }

    def within(body: list[ast.stmt], of_class: bool, *, known_base: bool = True) -> Iterator[tuple[str, ast.AST, bool]]:
        for node in body:
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
                yield node.name, node, of_class
                yield from within(node.body, True, known_base=bases <= OWN_BASES | local)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if known_base and (of_class or not node.decorator_list):
                    yield node.name, node, of_class
                for part in ast.walk(node) if of_class and known_base else ():
                    for target in targets(part):
                        if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                            yield target.attr, part, True
            elif known_base:
                for target in targets(node):
                    if isinstance(target, ast.Name):
                        yield target.id, node, of_class

    return (found for found in within(tree.body, False) if not found[0].startswith("_"))


def test_every_public_name_has_a_reader() -> None:
    """What only its own definition and tests read is dead: delete it, or give it its user. A name counts as read if
    any of that name is, so this finds less than there is, and nothing that is none."""
    trees = [ast.parse(path.read_text()) for path in modules()]
    kernels = Counter(re.findall(r"\w+", "\n".join(path.read_text() for path in PACKAGE.rglob("*.pyx"))))
    names, attributes = kernels.copy(), kernels.copy()
    benchmarks = [ast.parse(path.read_text()) for path in (ROOT / "bench").glob("*.py")]
    for tree in trees + benchmarks:
        for total, found in zip((names, attributes), reads(tree), strict=True):
            total.update(found)
    unread = set()
    for tree in trees:
        for name, node, is_attribute in definitions(tree):
            own_names, own_attributes = reads(node)
            others = attributes[name] - own_attributes[name]
            if not is_attribute:
                others += names[name] - own_names[name]
            if not others:
                unread.add(name)
    assert unread - UNREAD.keys() == set(), "nobody reads these: delete them, or say in UNREAD why they stay"
    assert UNREAD.keys() - unread == set(), "these have a reader, or are gone: drop them from UNREAD"


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

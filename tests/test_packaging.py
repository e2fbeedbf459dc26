"""The wheel: what is in it, that it works away from the sources, and that kernels are never lost in silence."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = (
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "catalogs",
    "docs/guides",
    "notebooks",
    "schemas",
    "streamlake",
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources as a checkout has them: nothing that was built."""
    there = tmp_path_factory.mktemp("sources")
    built = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, there / name, ignore=built)
        else:
            shutil.copy(ROOT / name, there / name)
    return there


def build(sources: Path, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=sources, env={**os.environ, **environ}, capture_output=True, text=True
    )


@pytest.mark.timeout(600)
def test_a_compiler_that_fails(sources: Path) -> None:
    refused = build(sources, "setup.py", "-q", "build_ext", CC="/bin/false", STREAMLAKE_REQUIRE_KERNELS="1")
    assert refused.returncode != 0
    assert "STREAMLAKE_REQUIRE_KERNELS is set, and a kernel cannot be compiled" in refused.stderr
    warned = build(sources, "setup.py", "-q", "build_ext", CC="/bin/false", STREAMLAKE_REQUIRE_KERNELS="0")
    assert warned.returncode == 0, warned.stderr
    assert "WARNING: StreamLake is built without streamlake.record.kernel" in warned.stderr
    assert not list(sources.rglob("*.so"))


@pytest.mark.timeout(900)
def test_the_wheel(sources: Path, tmp_path: Path) -> None:
    command = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(tmp_path), "."]
    built = build(sources, *command, STREAMLAKE_REQUIRE_KERNELS="1", CFLAGS="-O0")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"streamlake_server-{PROJECT['project']['version']}-")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    for kernel in PROJECT["tool"]["setuptools"]["ext-modules"]:
        stem = kernel["name"].replace(".", "/") + "."
        assert [n for n in names if n.startswith(stem) and n.endswith(".so")], kernel["name"]
    for folder in ("catalogs", "docs/guides", "notebooks", "schemas"):
        for file in (ROOT / folder).rglob("*.*"):
            assert f"streamlake/share/{file.relative_to(ROOT)}" in names
    (entry_points,) = [n for n in names if n.endswith("entry_points.txt")]
    assert "[pytest11]\nstreamlake = streamlake.pytest_plugin" in (tmp_path / "installed" / entry_points).read_text()
    assert "streamlake/cluster/store/migrations/versions/v0001_first_tables.py" in names
    assert not [
        n
        for n in names
        if n.endswith(".c") or n.split("/")[0] not in ("streamlake", wheel.name.rsplit("-", 3)[0] + ".dist-info")
    ]
    environ = {"PYTHONPATH": str(tmp_path / "installed")}
    for option, said in [
        ("--version", f"streamlake {PROJECT['project']['version']}"),
        ("--share", f"{tmp_path}/installed/streamlake/share"),
    ]:
        done = build(tmp_path, "-m", "streamlake.cli.main", option, **environ)
        assert done.stdout.strip() == said, done.stderr


def test_no_text_advises_what_is_somebody_elses() -> None:
    """`streamlake` on PyPI is not ours: nobody may be told to install it."""
    texts = [
        ROOT / "README.md",
        ROOT / "pyproject.toml",
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("*/**/*.py"),
        *ROOT.glob("*.md"),
    ]
    for path in texts:
        if {".venv", "build"} & set(path.relative_to(ROOT).parts) or path == Path(__file__):
            continue
        text = path.read_text()
        assert "pip install streamlake" not in text.replace("streamlake-server", ""), path
        for extra in PROJECT["project"]["optional-dependencies"]:
            assert f"streamlake[{extra}" not in text, path

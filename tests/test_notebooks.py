"""The notebooks run as they are, against servers of their own; and as they are stored they can be read without running."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from support.wait import DEADLINE_S

ROOT = Path(__file__).parents[1]
TOOL = ROOT / "tools" / "notebooks.py"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BYTES_MAX = 300_000
OF_A_MACHINE = re.compile(r"/(?:home|root|tmp|usr|opt|Users)/|127\.0\.0\.1:\d|0x[0-9a-f]{6,}")


def execute(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=3 * DEADLINE_S)


@pytest.mark.whole
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path):
    """Its own asserts check the numbers. What is stored has the same cells with the same kinds of output."""
    done = execute("--into", tmp_path, path)
    assert done.returncode == 0, done.stderr
    assert shape(nbformat.read(tmp_path / path.name, 4)) == shape(nbformat.read(path, 4)), "run `make notebooks`"


def shape(notebook: Any) -> list[Any]:
    """Without stderr, which what is stored must not have; here Spark may write there, where it is installed."""
    return [
        (
            cell.source,
            [(o.output_type, sorted(o.get("data", {}))) for o in cell.get("outputs", []) if o.get("name") != "stderr"],
        )
        for cell in notebook.cells
    ]


@pytest.mark.whole
def test_a_cell_that_fails_is_shown_and_nothing_is_stored(tmp_path):
    path = tmp_path / "wrong.ipynb"
    cells = [nbformat.v4.new_code_cell("rows = 3"), nbformat.v4.new_code_cell("assert rows == 4, 'rows differ'")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    before = path.read_text()
    done = execute(path)
    assert done.returncode == 1
    assert "wrong.ipynb failed" in done.stderr and "rows differ" in done.stderr
    assert path.read_text() == before


def test_there_are_notebooks():
    assert {"first_table", "dead_letters", "late_readings", "engines"} <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_can_be_read_without_running(path):
    """Each cell ran once, in order, without errors or warnings, and has its output; each step is explained."""
    cells = nbformat.read(path, 4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run `make notebooks`"
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs), "a plot"
    assert any("assert" in cell.source for cell in code)
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    assert code[-1].source.endswith("lake.stop()")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_stored_is_light_and_of_no_machine(path):
    text = path.read_text()
    assert len(text) <= BYTES_MAX
    without_pictures = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not OF_A_MACHINE.search(without_pictures), OF_A_MACHINE.findall(without_pictures)
    metadata = json.loads(text)["metadata"]
    assert metadata["language_info"] == {"name": "python"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown":
            for link in re.findall(r"\]\((?!https?://)([^)#]+)", cell.source):
                assert (path.parent / link).exists(), link

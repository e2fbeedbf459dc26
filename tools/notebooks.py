"""Run the notebooks, each in a kernel of its own, and keep what they print and plot: `make notebooks`.

`python tools/notebooks.py [--into DIRECTORY] [NOTEBOOK …]`: without names all in notebooks/, and without a directory in place, for a commit. A cell that
fails ends the run with its error and exit code 1, and that notebook stays as it was.
"""

import argparse
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
CELL_TIMEOUT_S = 180


def run(path: Path, into: Path) -> None:
    """CellExecutionError, CellTimeoutError, DeadKernelError."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,  # else every run would change every cell
    )
    client.execute()
    notebook.metadata.language_info = {"name": "python"}  # else it would name the Python of this machine
    nbformat.validate(notebook)
    nbformat.write(notebook, into / path.name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--into", type=Path, metavar="DIRECTORY", help="where the notebooks go that were run")
    arguments = parser.parse_args()
    for path in arguments.notebooks or sorted(NOTEBOOKS.glob("*.ipynb")):
        started = time.perf_counter()
        try:
            run(path, arguments.into or path.parent)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            print(f"{path.name} failed:\n{error}", file=sys.stderr)
            return 1
        print(f"{path.name}: {time.perf_counter() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs chapters cell by cell in one IPython shell, as a reader does with Run All.

    python tests/one_kernel.py <root> <stage>[:<cells>] ...

<cells> are ids joined by "+"; without them all cells run. Prints a JSON list with a row for each
stage: its seconds of processor time, the parameters it ran with, and the first error as one line or
null. Pictures are drawn and not rendered: one of them stands for all. What chapters measure in
fresh processes is measured in a thread of this one: a new process would import torch each time.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell

from minitransformer.train import RECIPES
from paper import display
from studies import processes

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(8) + 2 * b"\0\0\0\2"  # of two pixels by two


class Shell(InteractiveShell):
    """A shell whose client tells which cell it runs, as JupyterLab does."""

    cell = ""

    def get_parent(self) -> dict:
        return {"metadata": {"cellId": self.cell}}


def run(shell, root: Path, stage: str, ids: list[str]) -> str | None:
    """The first error of a notebook's cells, None where all ran."""
    book = json.loads((root / "notebooks" / f"{stage}.ipynb").read_text(encoding="utf-8"))
    for cell in book["cells"]:
        if cell["cell_type"] == "code" and (not ids or cell["id"] in ids):
            shell.cell = cell["id"]
            done = shell.run_cell("".join(cell["source"]), store_history=True, silent=False)
            error = done.error_before_exec or done.error_in_exec
            if error is not None:
                return f"{cell['id']}: {type(error).__name__}: {error}"
    return None


def main(root: Path, wanted: list[str]) -> list[dict]:
    RECIPES["seed"] = replace(RECIPES["seed"], steps=2)  # the one size that is no parameter
    display.png_bytes, display.svg_text = lambda _: PICTURE, lambda *_: ""
    processes._started = lambda: ThreadPoolExecutor(1)
    shell, rows = Shell.instance(), []
    shell.run_line_magic("xmode", "Minimal")
    for item in wanted:
        stage, _, ids = item.partition(":")
        start = time.process_time()
        error = run(shell, root, stage, ids.split("+") if ids else [])
        params = vars(shell.user_ns["nb"].params) if "nb" in shell.user_ns else {}
        seconds = round(time.process_time() - start, 1)
        rows.append({"ran": item, "seconds": seconds, "error": error, "params": params | {}})
    return rows


if __name__ == "__main__":
    out, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2:])), file=out)

"""No folder of the machine in what a run leaves."""

import re
import sys
import tempfile
from pathlib import Path

from .files import tree

TEXT = (".ipynb", ".json", ".jsonl", ".csv", ".html", ".txt", ".toml", ".yaml", ".md")
CELL = re.compile(rf"{re.escape(tempfile.gettempdir())}/ipykernel_\d+/\d+\.py")
PACKAGES = re.compile(r"[^\s'\"<>=:]*/(site-packages|dist-packages)/")
END = r"(?![\w-]|\.\w)"  # of a folder's name: not in the middle of another's
COMMON = 2  # parts of a path such as /usr, which names no machine


def folders(root: Path, *more: Path) -> list[str]:
    """The folders that would tell whose machine a run was made on, the longest first: the project's
    own, Python's, the home folder, the one for temporary files, and `more`."""
    found = (root, sys.prefix, sys.base_prefix, Path.home(), tempfile.gettempdir())
    kept = {str(p) for p in map(Path, found) if len(p.parts) > COMMON}
    kept |= {str(p) for p in more if len(p.parts) > 1}
    return sorted(kept, key=lambda name: (-len(name), name))


def scrub(text: str, root: Path, *more: Path) -> str:
    """`text` with paths in the project taken from its root, those of packages from theirs, and any
    other of the machine's folders left out."""
    text = CELL.sub("<cell>", text)
    text = PACKAGES.sub(r"\1/", text)
    for folder in folders(root, *more):
        text = re.sub(rf"(?<![\w.-]){re.escape(folder)}(/|{END})", "", text)
    return text


def scrub_notebook(notebook, root: Path, *more: Path):
    """The notebook with every text that it shows scrubbed, and the parameters that were given it;
    pictures stay as they are."""
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell.source = scrub(cell.source, root, *more)
        for output in cell.get("outputs", ()):
            if "text" in output:
                output.text = scrub(output.text, root, *more)
            if "traceback" in output:
                output.evalue = scrub(output.evalue, root, *more)
                output.traceback = [scrub(line, root, *more) for line in output.traceback]
            for kind, value in output.get("data", {}).items():
                if isinstance(value, str) and (kind.startswith("text/") or kind == "image/svg+xml"):
                    output.data[kind] = scrub(value, root, *more)
    return notebook


def naming(run_dir: Path, root: Path, *words: str) -> list[str]:
    """The files of a run, hidden ones apart, that name a folder of this machine or one of `words`,
    such as its host name."""
    known = [re.escape(word) for word in (*folders(root), *words)]
    pattern = re.compile(rf"(?<![\w.-])(?:{'|'.join(known)}){END}")
    texts = (path for path in tree(run_dir) if path.suffix in TEXT)
    return [
        path.relative_to(run_dir).as_posix()
        for path in texts
        if pattern.search(path.read_text(encoding="utf-8", errors="replace"))
    ]

"""The script of the page: small files of plain JavaScript in reports/template/, joined into the one
inline module that index.html holds. Each is a module by itself, so that node can test it."""

import re
from pathlib import Path

# What is used stands before what uses it.
PARTS = ("dom", "engine", "tokenizer", "choice", "talk", "filter", "marked", "frame", "law")


def joined(folder: Path) -> str:
    """The files as one module: what they import from each other stands above, and nobody imports
    from a page."""
    parts = [(folder / f"{name}.mjs").read_text(encoding="utf-8") for name in PARTS]
    text = "\n".join(re.sub(r"^import .*\n+", "", part, flags=re.M) for part in parts)
    return re.sub(r"^export ", "", text, flags=re.M)

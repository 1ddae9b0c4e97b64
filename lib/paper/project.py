"""Where things are: the project's root, its notebooks and reports, and what a run is called."""

import hashlib
import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .files import sha256

CHAPTERS = ("01-data", "02-train", "03-eval", "04-kv-bench", "05-quant-bench", "06-ablations")
STAGES = (*CHAPTERS, "report")
UPSTREAM = {
    "01-data": (),
    "02-train": ("01-data",),
    "03-eval": ("01-data", "02-train"),
    "04-kv-bench": ("01-data", "02-train"),
    "05-quant-bench": ("01-data", "02-train"),
    "06-ablations": ("01-data",),
    "report": CHAPTERS,
}


@dataclass(frozen=True)
class Project:
    """The folders everything is found from; `root` holds pyproject.toml and notebooks/."""

    root: Path

    @staticmethod
    def find(start: Path | None = None) -> "Project":
        """Walks up from `start` (the current folder), then from this package; FileNotFoundError if
        neither is in a checkout."""
        start = Path(start or Path.cwd()).resolve()
        package = Path(__file__).resolve()
        for folder in (start, *start.parents, *package.parents):
            if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
                return Project(folder)
        raise FileNotFoundError(
            f"no project above {start}: run from a checkout, or install it with pip install -e ."
        )

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    def notebook(self, stage: str) -> Path:
        return self.notebooks / f"{stage}.ipynb"

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """The chapters that exist, in order; `report` last."""
        return tuple(s for s in STAGES if self.notebook(s).is_file())

    def upstream(self, stage: str) -> tuple[str, ...]:
        return tuple(s for s in UPSTREAM.get(stage, ()) if s in self.stages)

    def relative(self, path: Path) -> str:
        """`path` from the root where it lies inside, so that nothing written names this machine's
        folders."""
        path = Path(path).resolve()
        return (
            path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)
        )

    def run_dir(self, params: dict) -> Path:
        """reports/<profile>, or reports/<profile>-<name>-<first 8 of its sha256> for another corpus
        than the language."""
        profile, corpus = params["profile"], params.get("corpus", "")
        return self.reports / (f"{profile}-{self.corpus_tag(corpus)}" if corpus else profile)

    @cached_property
    def preflight(self) -> str:
        """`module:function` that checks a run's parameters, from pyproject.toml; "" for none."""
        text = (self.root / "pyproject.toml").read_text(encoding="utf-8")
        return tomllib.loads(text).get("tool", {}).get("paper", {}).get("preflight", "")

    @cached_property
    def catalogue(self) -> dict:
        """The named corpora of data/corpora.toml."""
        path = self.root / "data" / "corpora.toml"
        return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def corpus_file(self, corpus: str, *folders: Path) -> Path | None:
        """The text file that `corpus` names, looked for in `folders` and the root; None for a name
        of the catalogue.

        FileNotFoundError names the known ones.
        """
        if corpus in self.catalogue:
            return None
        for folder in (*folders, self.root):
            path = (Path(folder) / Path(corpus).expanduser()).resolve()
            if path.is_file():
                return path
        names = ", ".join(self.catalogue) or "none"
        raise FileNotFoundError(
            f"corpus {corpus!r} is neither a text file nor a known name: give a path, or one of {names}"
        )

    def corpus_tag(self, corpus: str) -> str:
        """`<name>-<sha8>` of a text file, or of the hashes that data/corpora.toml gives a named
        corpus."""
        path = self.corpus_file(corpus)
        if path is not None:
            return f"{slug(path.stem)}-{sha256(path)[:8]}"
        hashes = sorted(re.findall(r"[0-9a-f]{64}", str(self.catalogue[corpus])))
        return f"{slug(corpus)}-{hashlib.sha256(''.join(hashes).encode()).hexdigest()[:8]}"


def slug(text: str) -> str:
    """Lower-case letters, digits and hyphens, for file names and anchors."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "text"

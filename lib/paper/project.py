"""Where things are: the project's root, its chapters and runs, and what a run is called."""

import hashlib
import json
import os
import re
import tomllib
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path

from .files import digest, sha256
from .names import file_name, short, slug

ALL = "*"  # needs = ["*"]: the chapter that sums up all others
CATALOGUES = ("data/corpora.toml", "lib/minitransformer/corpus/corpora.toml")
OWN = "own"  # the folder of notebooks/ with the chapters about a model that the user gives
NAME_BYTES = 60  # of a corpus in the name of its run's folder, pack and lock


class ChapterError(ValueError):
    """A notebook that cannot be read, or whose metadata does not fit the others'."""


@dataclass(frozen=True)
class Chapter:
    """What a notebook says of itself, in its metadata under "paper". `name` is its file's, so that
    a copy of a chapter is none; `timed` are the artefacts that measured times change.

    What it depends on outside the run: `folders`, parameters that name one, by whether one is
    given; `sees`, patterns of files, by their names; `reads`, patterns, by content too, but not
    with a parameter of `writes`, with which it writes these itself; `finds`, programs and packages
    ("cc|gcc", any of these), by those that are lacking."""

    name: str
    needs: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    timed: tuple[str, ...] = ()
    resumes: tuple[str, ...] = ()  # artefacts from which a rerun of equal computations goes on
    folders: tuple[str, ...] = ()
    sees: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    finds: tuple[str, ...] = ()

    @property
    def sums_up(self) -> bool:
        return ALL in self.needs


def read_notebook(path: Path) -> dict:
    """A notebook as JSON; ChapterError where it is none."""
    try:
        book = json.loads(Path(path).read_text(encoding="utf-8"))
        if isinstance(book["cells"], list) and isinstance(book["metadata"], dict):
            return book
        why = "its cells are no list"
    except KeyError as error:
        why = f"it has no {error.args[0]}"
    except (ValueError, TypeError) as error:
        why = str(error)
    where = f"{path.parent.name}/{path.name}"
    raise ChapterError(f"{where} is not a notebook ({why}): take it from git again, or delete it")


def declared(path: Path) -> Chapter | None:
    """What the notebook at `path` declares; None for a notebook that is no chapter."""
    said = read_notebook(path)["metadata"].get("paper")
    if said is None:
        return None
    known = [field.name for field in fields(Chapter)]
    if not isinstance(said, dict) or not set(said) <= set(known) or "name" not in said:
        raise ChapterError(
            f"{path.name}: metadata paper = {short(str(said))} is not understood: give name, and "
            f"some of {', '.join(known[1:])}"
        )
    if said["name"] != path.stem:
        return None
    lists = {key: tuple(value) for key, value in said.items() if key != "name"}
    return Chapter(said["name"], **lists)


def in_order(found: list[Chapter]) -> dict[str, Chapter]:
    """Chapters by name, in the order of their names, the one that sums up last; ChapterError where
    one needs another that does not come before it, or two claim a target."""
    chapters = {c.name: c for c in sorted(found, key=lambda c: (c.sums_up, c.name))}
    before, owner = set(), {}
    for chapter in chapters.values():
        for name in {*chapter.needs} - {ALL} - before:
            why = "comes after it: number it later" if name in chapters else "is no chapter"
            raise ChapterError(f"{chapter.name} needs {name}, which {why}")
        before.add(chapter.name)
        for target in chapter.targets:
            other = owner.setdefault(target, chapter.name)
            if other != chapter.name:
                raise ChapterError(f"{other} and {chapter.name} both claim the target {target}")
    return chapters


@dataclass(frozen=True)
class Project:
    """The folders everything is found from; `root` holds pyproject.toml and notebooks/, and `part`
    is the folder in there that a set of chapters of its own lies in."""

    root: Path
    part: str = ""

    @staticmethod
    def find(start: Path | None = None) -> "Project":
        """Walks up from `start` (the current folder), then from this package; FileNotFoundError if
        neither is in a checkout."""
        start = Path(start or Path.cwd()).resolve()
        package = Path(__file__).resolve()
        for folder in (start, *start.parents, *package.parents):
            if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
                own = start.is_relative_to(folder / "notebooks" / OWN)
                return Project(folder, OWN if own else "")
        raise FileNotFoundError(
            f"no project above {start}: run from a checkout, or install it with pip install -e ."
        )

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks" / self.part

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    def notebook(self, stage: str) -> Path:
        return self.notebooks / f"{stage}.ipynb"

    @cached_property
    def declared(self) -> dict[str, Chapter]:
        """Every notebook that declares itself a chapter, in order."""
        found = [declared(path) for path in sorted(self.notebooks.glob("*.ipynb"))]
        return in_order([chapter for chapter in found if chapter])

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of all chapters in order; the one that sums them up is the last."""
        return tuple(self.declared)

    @property
    def chapters(self) -> tuple[str, ...]:
        """The names of the chapters that stand for themselves, in order."""
        return tuple(name for name, chapter in self.declared.items() if not chapter.sums_up)

    def upstream(self, stage: str) -> tuple[str, ...]:
        """All that has to run before `stage`, in order: what it needs, and what that needs."""
        needs = set(self.declared[stage].needs) if stage in self.declared else set()
        for name in reversed(self.chapters):  # what a chapter needs comes before it
            if name in needs or ALL in needs:
                needs |= {name, *self.declared[name].needs}
        return tuple(name for name in self.chapters if name in needs)

    @property
    def folders(self) -> tuple[str, ...]:
        """The parameters that name a folder outside the run, of all chapters."""
        named = (name for chapter in self.declared.values() for name in chapter.folders)
        return tuple(dict.fromkeys(("corpora_dir", *named)))

    def matching(self, patterns) -> list[Path]:
        """The files of the project that match one of these patterns, in order."""
        found = {path for pattern in patterns for path in self.root.glob(pattern)}
        return sorted(path for path in found if path.is_file())

    @property
    def targets(self) -> dict[str, str]:
        """Target -> the chapter that it ends with; a chapter's own name is a target too."""
        named = {t: c.name for c in self.declared.values() for t in c.targets}
        return {name: name for name in self.stages} | named

    def relative(self, path: Path) -> str:
        """`path` from the root where it lies inside, so that nothing written names this machine's
        folders."""
        path = Path(path).resolve()
        return (
            path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)
        )

    def run_dir(self, params: dict) -> Path:
        """reports/<profile>, or reports/<profile>-<name>-<first 8 of its sha256> for another corpus
        than the language; reports/model-<name>-<hash> for a model of the user's."""
        profile, corpus = params["profile"], params.get("corpus", "")
        if params.get("model"):
            name, sha = self.model_identity(params["model"])
            known = digest([sha, self.corpus_identity(corpus) if corpus else "", profile])
            return self.reports / f"model-{slug(name, NAME_BYTES)}-{known[:8]}"
        if not corpus:
            return self.reports / profile
        name, sha = self.corpus_identity(corpus)
        return self.reports / f"{profile}-{slug(Path(name).stem, NAME_BYTES)}-{sha[:8]}"

    @cached_property
    def settings(self) -> dict:
        """What pyproject.toml says in [tool.paper]: `preflight`, the `module:function` that checks
        a run's parameters, `preload`, the modules that kernels start with, and `test`, the command
        that runs the tests."""
        text = (self.root / "pyproject.toml").read_text(encoding="utf-8")
        return tomllib.loads(text).get("tool", {}).get("paper", {})

    @cached_property
    def catalogue(self) -> dict:
        """The named corpora, of the first of `CATALOGUES` that is there."""
        paths = [path for path in (self.root / name for name in CATALOGUES) if path.is_file()]
        return tomllib.loads(paths[0].read_text(encoding="utf-8")) if paths else {}

    def corpus_file(self, corpus: str, *folders: Path) -> Path | None:
        """The text file that `corpus` names, looked for in `folders` and the root; None for a name
        of the catalogue.

        FileNotFoundError names the known ones."""
        if corpus in self.catalogue:
            return None
        places = [Path(folder) / name for folder in (*folders, self.root) for name in _read(corpus)]
        path = next((place.resolve() for place in places if _is(place, Path.is_file)), None)
        shown = repr(short(corpus))
        if path is None and any(_is(place, Path.is_dir) for place in places):
            raise FileNotFoundError(f"corpus {shown} is a folder: give a text file in it")
        if path is None:
            names = ", ".join(self.catalogue) or "none"
            raise FileNotFoundError(
                f"corpus {shown} is neither a text file nor a known name: give a path, or one of "
                f"{names}"
            )
        if not os.access(path, os.R_OK):
            raise FileNotFoundError(f"corpus {shown} may not be read: give yourself the right to")
        return path

    def corpus_identity(self, corpus: str) -> tuple[str, str]:
        """(name, SHA-256) of a text file, or of the hashes that the catalogue gives a named corpus:
        what a record says of it, wherever on a machine it lies."""
        path = self.corpus_file(corpus)
        if path is not None:
            return file_name(path.name), sha256(path)
        hashes = sorted(re.findall(r"[0-9a-f]{64}", str(self.catalogue[corpus])))
        return corpus, hashlib.sha256("".join(hashes).encode()).hexdigest()

    def model_identity(self, model: str) -> tuple[str, str]:
        """(name, SHA-256) of a model's folder: of all its JSON and safetensors files."""
        folder = Path(model)
        if not folder.is_absolute():
            folder = self.root / folder
        files = [p for kind in ("*.json", "*.safetensors") for p in folder.glob(kind)]
        there = [p for p in files if _is(p, Path.is_file)]
        known = {p.name: _hashed(p, p.stat().st_size, p.stat().st_mtime_ns) for p in there}
        return file_name(folder.name), digest(known)


@cache
def _hashed(path: Path, size: int, time: int) -> str:
    """The SHA-256 of a large file, read once as long as its `size` and `time` stay."""
    return sha256(path)


def _read(corpus: str) -> list[Path]:
    """How a corpus given as text may be meant: as it stands, and with ~ as a home folder."""
    try:
        return [Path(corpus), Path(corpus).expanduser()]
    except RuntimeError:  # nobody of that name has a home
        return [Path(corpus)]


def _is(path: Path, kind) -> bool:
    """`kind(path)`, False for a name that this system cannot have."""
    try:
        return kind(path)
    except (OSError, ValueError):
        return False

"""What a run's folder holds besides what its stages leave: summaries, the page, hashes.

Each is made again where what it is made from has changed or where it is damaged, and only there."""

from importlib import import_module
from pathlib import Path

from . import about, claims, evidence, stages
from .files import digest, sha256, tree
from .project import Project
from .sources import LIB

SUMMARY = ("claims.json", "run.json")
PAGE = ("index.html",)
HASHES = ("HASHES.txt",)


def load(name: str):
    """What `module:function` names; its module is imported only when it is needed, because a
    command that finds nothing to do needs no kernels, data frames or tensors."""
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)


def summarise(project: Project, params: dict, run_dir: Path) -> None:
    """claims.json and run.json from what has run so far."""

    def make():
        claims.merge(run_dir, [s for s in project.stages if stages.read_stamp(run_dir, s)])
        load("paper.provenance:write_run")(project, run_dir, params)

    _make(run_dir, "summary", summary_key(project, run_dir), SUMMARY, make)


def finish(project: Project, params: dict, run_dir: Path, page: bool) -> None:
    """Summaries, the page if it was asked for, and the hashes of all."""
    summarise(project, params, run_dir)
    if page:
        build = load("paper.html:build_html")
        _make(run_dir, "html", page_key(project, run_dir), PAGE, lambda: build(run_dir))
    write = load("paper.provenance:write_hashes")
    _make(run_dir, "hashes", hashes_key(run_dir), HASHES, lambda: write(run_dir))


def finished(project: Project, run_dir: Path, page: bool) -> bool:
    """Whether `finish` would change nothing."""
    return (
        _current(run_dir, "summary", summary_key(project, run_dir))
        and (not page or _current(run_dir, "html", page_key(project, run_dir)))
        and _current(run_dir, "hashes", hashes_key(run_dir))
    )


def summary_key(project: Project, run_dir: Path) -> str:
    return digest(_keys(project, run_dir))


def page_key(project: Project, run_dir: Path) -> str:
    """The hash of what the page is made from: artefacts, evidence, who made it, and the code that
    renders."""
    folders = (LIB / "paper", project.reports / "template")
    sources = [p for folder in folders for p in tree(folder) if "__pycache__" not in p.parts]
    hashes, said = [sha256(path) for path in sources], about.about(project.root)
    return digest([_keys(project, run_dir), hashes, evidence.read(project), said])


def hashes_key(run_dir: Path) -> str:
    return digest([stages.read_stamp(run_dir, name) for name in ("summary", "html")])


def _keys(project: Project, run_dir: Path) -> dict:
    stamps = {name: stages.read_stamp(run_dir, name) for name in project.stages}
    return {name: [s["key"], s["artefacts"]] for name, s in stamps.items() if s}


def _current(run_dir: Path, name: str, key: str) -> bool:
    stamp = stages.read_stamp(run_dir, name)
    return stamp is not None and stamp["key"] == key and not stages.damaged(run_dir, stamp)


def _make(run_dir: Path, name: str, key: str, outputs: tuple, make) -> None:
    if _current(run_dir, name, key):
        return
    stages.stamp_path(run_dir, name).unlink(missing_ok=True)
    make()
    left = {output: sha256(run_dir / output) for output in outputs}
    stages.write_stamp(run_dir, name, key=key, params={}, seconds=0, artefacts=left)

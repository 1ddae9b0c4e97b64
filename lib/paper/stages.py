"""What a stage depends on, and whether it is current.

A stage is a notebook. Its key hashes everything it depends on: its source, its parameters, the
library files it imports, the lock and the artefacts of the stages before it. The stamp
`.stages/<stage>.json`, written last and removed first, says with which key a stage ran and what it
left; times of files decide nothing."""

import shutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from . import bars, evidence
from .claims import LEDGER, seed_claims
from .files import digest, read_record, sha256, tree, write_json
from .parameters import parameters_cell
from .project import Chapter, Project, read_notebook
from .revision import state
from .sources import SHOWING, imports, library_files

# parameters that only say where things are, beside the folders that chapters declare
PLACES = ("run_dir", "corpus", "model")
STAMPED = ("key", "params", "seconds", "artefacts")


def key(project: Project, stage: str, params: dict, run_dir: Path) -> str | None:
    """The hash of all that `stage` depends on; None while a stage before it has not run in
    `run_dir`."""
    found = parts(project, stage, params, run_dir)
    return found and digest(found)


def computation(found: dict) -> str:
    """The hash of those `parts` of a stage that decide what it computes, without those that decide
    how it looks and reads: what draws and says, and the text between the cells."""
    library = {n: sha for n, sha in found["library"].items() if not n.startswith(SHOWING)}
    kept = {n: found[n] for n in ("params", "lock", "before", "corpus")}
    return digest(kept | {"code": found["source"]["code"], "library": library})


def parts(project: Project, stage: str, params: dict, run_dir: Path) -> dict | None:
    """What `stage` depends on, by kind; None while a stage before it has not run."""
    before = {}
    for name in project.upstream(stage):
        stamp = read_stamp(run_dir, name)
        if stamp is None:
            return None
        before[name] = digest(stamp["artefacts"])
    source = notebook_source(project.notebook(stage))
    lock = project.root / "requirements.lock"
    chapter = project.declared.get(stage)
    sums_up = chapter is not None and chapter.sums_up
    return outside(project, stage, params) | {
        "source": source,
        "params": stage_params(project, stage, params),
        "library": library_files(imports("\n".join(source["code"]))),
        "audited": [row for row in ledger(sha256(LEDGER)) if sums_up or stage == row["notebook"]],
        "bars": judged_by(source["code"]),
        "lock": sha256(lock) if lock.is_file() else None,
        "before": before,
        "corpus": corpus_hash(project, params),
        # what the summing chapter reads besides the run
        "gates": gates(project) if sums_up else None,
    }


@cache
def ledger(sha: str) -> list[dict]:
    """What the original report states; `sha` keeps the cache true."""
    return list(seed_claims().values())


def judged_by(code: list[str]) -> list[str]:
    """The bars that a notebook's code names: one that changes is judged again."""
    if not any(".bar(" in cell for cell in code):
        return []
    named = [(id, bar) for id, bar in bars.read().items() if f'"{id}"' in "".join(code)]
    return [repr(bar) for _, bar in sorted(named)]


def gates(project: Project) -> list:
    """The state of the project, and the evidence that was made of it."""
    now = state(project.root)
    return [now, evidence.read(project, now)]


def notebook_source(path: Path) -> dict:
    """Code and Markdown of a notebook without its outputs."""
    cells = read_notebook(path)["cells"]
    return {
        kind: ["".join(c["source"]) for c in cells if c["cell_type"] == kind]
        for kind in ("code", "markdown")
    }


def stage_params(project: Project, stage: str, params: dict) -> dict:
    """The parameters `stage` declares, without those that only say where things are; a corpus
    counts by its name and hash."""
    declared = parameters_cell(project.notebook(stage))
    return {n: params[n] for n in declared if n not in (*PLACES, *project.folders)}


def outside(project: Project, stage: str, params: dict) -> dict:
    """What the chapter declares that it depends on outside the run, see `project.Chapter`: what it
    looks for in vain, which folders it was given, which files are there, and what is in others; {}
    for one that declares nothing."""
    chapter = project.declared.get(stage) or Chapter(stage)
    lacks = [names for names in chapter.finds if not any(map(at_hand, names.split("|")))]
    told = {"lacks": lacks} if lacks else {}
    if not (chapter.folders or chapter.sees or chapter.reads):
        return told
    given = [bool(params.get(name)) for name in chapter.folders]
    seen = [project.relative(path) for path in project.matching(chapter.sees)]
    written = any(params.get(name) for name in chapter.writes)
    read = [] if written else project.matching(chapter.reads)
    found = [(project.relative(path), sha256(path)) for path in read]
    return told | {"outside": [given, seen, found]}


def at_hand(name: str) -> bool:
    """Whether there is a program or a package of this name."""
    return shutil.which(name) is not None or find_spec(name) is not None


def corpus_hash(project: Project, params: dict) -> str:
    """Name and SHA-256 of the corpus, and of a given model, as one hash, "" for the language."""
    found = [project.corpus_identity(params["corpus"])] if params.get("corpus") else []
    if params.get("model"):
        return digest([*found, project.model_identity(params["model"])])
    return digest(*found) if found else ""


def stamp_path(run_dir: Path, stage: str) -> Path:
    return Path(run_dir) / ".stages" / f"{stage}.json"


def read_stamp(run_dir: Path, stage: str) -> dict | None:
    """What a finished stage left in writing; None where it has not finished, or the stamp is
    damaged."""
    stamp = read_record(stamp_path(run_dir, stage))
    return stamp if stamp and all(name in stamp for name in STAMPED) else None


def write_stamp(run_dir: Path, stage: str, **about) -> None:
    """Says that `stage` has finished: its key, parameters, seconds, and the SHA-256 of each
    artefact."""
    write_json(stamp_path(run_dir, stage), {"stage": stage, **about})


def artefacts(run_dir: Path) -> list[str]:
    """The names of all files a run left, without hidden ones and failed notebooks."""
    return [
        p.relative_to(run_dir).as_posix()
        for p in tree(run_dir)
        if not p.name.endswith(".failed.ipynb")
    ]


def current(project: Project, stage: str, params: dict, run_dir: Path) -> bool:
    """Whether `stage` has run in `run_dir` with what it depends on today, and what it left is still
    whole."""
    stamp = read_stamp(run_dir, stage)
    return (
        stamp is not None
        and stamp["key"] == key(project, stage, params, run_dir)
        and not damaged(run_dir, stamp)
    )


def damaged(run_dir: Path, stamp: dict) -> list[str]:
    """The artefacts of a stage that are gone or are not what it wrote."""
    return [
        name
        for name, known in stamp["artefacts"].items()
        if not (Path(run_dir) / name).is_file() or sha256(Path(run_dir) / name) != known
    ]


def expected(project: Project, stage: str, run_dir: Path) -> float | None:
    """The seconds that `stage` took when it last ran here, or else in another run of this profile;
    None where nobody knows."""
    profile = run_dir.name.partition("-")[0]
    others = sorted(project.reports.glob(f"{profile}*"))
    stamps = (read_stamp(folder, stage) for folder in (run_dir, *others))
    return next((stamp["seconds"] for stamp in stamps if stamp), None)

"""`make publish`: the gates that have not passed at this commit, the page that shows them, and its
copy in reports/reference/, the committed rendering."""

import subprocess
import sys
import time
from pathlib import Path

from . import commands, companions, evidence, pack, picture, readme, stages
from .files import read_json, read_record, write_bytes, write_json
from .grading import holding
from .names import short
from .progress import clock
from .project import Project
from .record import read
from .revision import git, state
from .scrub import naming
from .targets import run

# In this order: what fails most easily first; the pack holds the run that the others judge.
GATES = ("test", "verify-corpus", "test-idem", "verify")
PAGE = "page"  # the summing chapter and the page, which are made again with the evidence


def publish(project: Project, params: dict, options) -> None:
    """Runs what is lacking of the gates and of the run, renders, and copies; refuses a state that
    no commit holds, or a gate that fails, unless `options.anyway`: the page then says so."""
    run_dir = options.into or project.run_dir(params)
    refuse_changes(project, options.anyway)
    print(plan(project, params, run_dir), flush=True)
    for gate in GATES[:-1]:
        settle(project, params, options, gate, run_dir)
    run(project, params, "report", options.into)
    settle(project, params, options, "verify", run_dir)
    timed(project, PAGE, lambda: run(project, params, "report", options.into))
    pack.verify(pack.pack_run(project, run_dir))  # what is shipped holds the page as it now is
    names = copy(project, run_dir)
    where = project.relative(project.reports / "reference")
    print(f"{where}: {len(names)} files; commit them as the rendering of {named(project)}")


def refuse_changes(project: Project, anyway: bool) -> None:
    """RuntimeError where the rendering would be of no commit."""
    changed = git(project.root, "status", "--porcelain", "--untracked-files=no").splitlines()
    if changed and not anyway:
        raise RuntimeError(
            f"{len(changed)} tracked files differ from the commit ({short(changed[0][2:].strip())}"
            f"{', ...' if changed[1:] else ''}): commit them first, or add --anyway "
            "(PUBLISH_OPTIONS=--anyway)"
        )


def named(project: Project) -> str:
    now = state(project.root)
    return "this state" if now["commit"] == "unknown" else now["commit"][:10]


def lacking(project: Project, run_dir: Path) -> list[str]:
    """The gates that have not passed at this state of the project, for this run."""
    found = evidence.read(project)
    held = {gate: holding(found, gate, run_dir.name) for gate in GATES}
    return [gate for gate in GATES if not (held[gate] and held[gate]["passed"])]


def plan(project: Project, params: dict, run_dir: Path) -> str:
    """What will be done and how long it will take, in one line: times as they were last here."""
    last = read_record(seconds_file(project)) or {}
    steps = {gate: last.get(gate) for gate in lacking(project, run_dir)}
    stale = [s for s in project.chapters if not stages.current(project, s, params, run_dir)]
    steps |= {stage: stages.expected(project, stage, run_dir) for stage in stale}
    steps[PAGE] = last.get(PAGE)
    known = sum(filter(None, steps.values()))
    words = [f"{name} ({clock(t) if t else 'not timed yet'})" for name, t in steps.items()]
    return (
        f"publish {project.relative(run_dir)} at {named(project)}: {', '.join(words)}; "
        f"about {clock(known)}{' and what was not timed' if None in steps.values() else ''}"
    )


def settle(project: Project, params: dict, options, gate: str, run_dir: Path) -> None:
    """Runs a gate that has not passed; RuntimeError if it does not, unless `options.anyway`."""
    if gate not in lacking(project, run_dir):
        return
    print(f"publish: {gate}", flush=True)
    try:
        timed(project, gate, lambda: RUN[gate](project, params, options))
    except (RuntimeError, pack.PackError, OSError) as error:
        if not options.anyway:
            raise RuntimeError(f"not published, because {gate} fails: {error}") from error
        print(f"publish: {gate} fails and the page will say so: {error}", flush=True)


def test(project: Project, params: dict, options) -> None:
    """Runs the tests by the command of pyproject.toml, `[tool.paper] test`; RuntimeError where they
    do not pass, or left no evidence of it."""
    command = project.settings.get("test", ["make", "test"])
    own = [sys.executable if word == "python" else word for word in command]  # of this environment
    try:
        status = subprocess.run(own, cwd=project.root).returncode
    except OSError as error:
        raise RuntimeError(f"{command[0]} cannot be run ({error.strerror})") from None
    row = evidence.read(project)["test"]
    if status and row and row["passed"]:  # something else than a test failed
        write_json(evidence.folder(project) / "test.json", row | {"passed": False})
    if status or row is None or not row["passed"]:
        raise RuntimeError(f"`{' '.join(command)}` ended with status {status}")


def packed(project: Project, params: dict, options) -> None:
    commands.make_pack(project, params, options)
    commands.verify(project, params, options)


RUN = {
    "test": test,
    "verify-corpus": commands.verify_corpus,
    "test-idem": commands.test_idem,
    "verify": packed,
}


def timed(project: Project, name: str, do) -> None:
    """Does it, and keeps how long it took for the next plan."""
    start = time.monotonic()
    do()
    path = seconds_file(project)
    write_json(path, {**(read_record(path) or {}), name: round(time.monotonic() - start, 1)})


def seconds_file(project: Project) -> Path:
    return evidence.folder(project) / "seconds.json"


def copy(project: Project, run_dir: Path) -> list[str]:
    """Copies a finished run's page, and what it links, to reports/reference/, and gives README.md
    its headline table; RuntimeError for a run that names a folder of this machine."""
    names = companions.published(run_dir)
    missing = [name for name in companions.ALWAYS if not (run_dir / name).is_file()]
    if missing:
        where = f"{project.relative(run_dir)}/{missing[0]}"
        raise FileNotFoundError(f"{where} is missing: run make report PROFILE={run_dir.name}")
    found = naming(run_dir, project.root)
    if found:
        raise RuntimeError(
            f"{commands.named(found)} in {project.relative(run_dir)} name a folder of this "
            "machine: run it again where that folder is not written"
        )
    target = project.reports / "reference"
    for path in target.rglob("*"):
        if path.is_file() and path.relative_to(target).as_posix() not in names:
            path.unlink()
    for name in names:
        write_bytes(target / name, (run_dir / name).read_bytes())
    page = project.root / "README.md"
    if page.is_file():
        readme.update(page, read_json(run_dir / "headline.json", []), read(run_dir, "run.json"))
        if (project.root / picture.PLACE).is_file() and picture.browser():
            take_picture(project)
    return names


def take_picture(project: Project, params: dict | None = None, options=None) -> None:
    """Takes README.md's picture of the committed page, and shows it there."""
    folder = project.reports / "reference"
    run = read(folder, "run.json")
    picture.take(folder / "index.html", run, project.root / picture.PLACE)
    readme.show(project.root / "README.md", run)

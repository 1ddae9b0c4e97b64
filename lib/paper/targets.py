"""What each make target does."""

import os
import sys
import tempfile
from pathlib import Path

import nbformat

from . import claims, evidence, idempotence, pack, provenance, readme, runner, stages
from .files import digest, sha256, tree, write_bytes, write_json, write_text
from .parameters import ParameterError, notes, preflight, resolve
from .project import Project
from .sources import LIB

UP_TO = {
    "data": "01-data",
    "tokenize": "01-data",
    "train": "02-train",
    "eval": "03-eval",
    "bench": "04-kv-bench",
    "bench-quant": "05-quant-bench",
    "ablations": "06-ablations",
    "plot": "04-kv-bench",
    "plot-quant": "05-quant-bench",
    "report": "report",
    "run": "report",
}
PUBLISHED = ("index.html", "claims.json", "run.json", "HASHES.txt")


def read(project: Project, options) -> dict:
    """The run's parameters from the command line, checked before anything runs; ParameterError
    names value and remedy."""
    given = {}
    for item in options.set:
        name, equals, text = item.partition("=")
        if not equals:
            raise ParameterError(f"--set {item} is not NAME=VALUE: write --set seed=42")
        given[name] = text
    if given.get("corpus"):
        given["corpus"] = corpus_path(project, given["corpus"], options.caller)
    if given.get("corpora_dir"):
        folder = options.caller / Path(given["corpora_dir"]).expanduser()
        given["corpora_dir"] = Path(os.path.relpath(folder, project.root)).as_posix()
    params = resolve(project.notebooks, options.profile, given)
    for line in notes(project.notebooks, params):
        print(f"note: {line}", file=sys.stderr)
    last = UP_TO.get(options.target, options.target)
    preflight(project, params, (*project.upstream(last), last) if last in project.stages else None)
    return params


def corpus_path(project: Project, corpus: str, caller: Path) -> str:
    """A corpus file as a path from the project's root, wherever the command was given; a known name
    as it is."""
    try:
        path = project.corpus_file(corpus, caller)
    except FileNotFoundError as error:
        raise ParameterError(str(error)) from None
    return corpus if path is None else Path(os.path.relpath(path, project.root)).as_posix()


def run(project: Project, params: dict, options) -> Path:
    """Runs what is not current of the target's stages; `report` ends in index.html. Returns the
    run's folder."""
    last = UP_TO.get(options.target, options.target)
    if last not in project.stages:
        raise FileNotFoundError(
            f"notebooks/{last}.ipynb does not exist: nothing makes {options.target!r} yet"
        )
    run_dir = (options.into or project.run_dir(params)).resolve()
    runner.preflight(run_dir)
    needed = [*project.upstream(last), last]
    with stages.locked(run_dir):
        ran = [s for s in needed if step(project, s, params, run_dir, needed)]
        finish(project, params, run_dir, last, bool(ran))
    return run_dir


def step(project: Project, stage: str, params: dict, run_dir: Path, needed: list) -> bool:
    """Runs `stage` unless it is current, with a line before and after; whether it ran."""
    if stages.current(project, stage, params, run_dir):
        return False
    if stage == "report":
        summarise(project, params, run_dir)
    live = sys.stderr.isatty()
    place = f"[{needed.index(stage) + 1}/{len(needed)}] {stage}"
    print(f"{place} ...", flush=True)
    seconds = runner.run_stage(project, stage, params, run_dir, live=live)
    print(f"{place} done in {seconds:.1f} s", flush=True)
    return True


def summarise(project: Project, params: dict, run_dir: Path) -> None:
    """claims.json and run.json from what has run so far."""
    claims.merge(run_dir, [s for s in project.stages if stages.read_stamp(run_dir, s)])
    provenance.write_run(project, run_dir, params)


def finish(project: Project, params: dict, run_dir: Path, last: str, ran: bool) -> None:
    """Summaries, the rendering if the whole report was asked for, and hashes, where anything
    changed."""
    where = project.relative(run_dir)
    if ran:
        summarise(project, params, run_dir)
    if last == "report":
        ran = render(project, run_dir) or ran
    if ran:
        provenance.write_hashes(run_dir)
    if last in ("02-train", "report") and run_dir.parent == project.reports:
        pack.pack_model(project, run_dir, epoch())
    print(f"{where}/index.html" if last == "report" else f"{where}: {last} is current", flush=True)


def render(project: Project, run_dir: Path) -> bool:
    """Builds index.html unless it is that of the same artefacts, evidence and renderer; whether it
    was built."""
    from .html import build_html

    stamp = run_dir / ".stages" / "html.json"
    folders = (LIB / "paper", project.reports / "template")
    sources = [p for folder in folders for p in tree(folder) if "__pycache__" not in p.parts]
    keys = {s: stages.read_stamp(run_dir, s)["key"] for s in project.stages}
    wanted = digest(
        [
            keys,
            [sha256(p) for p in sources],
            evidence.read(project),
            sha256(run_dir / "claims.json"),
        ]
    )
    page = run_dir / "index.html"
    if page.is_file() and stamp.is_file() and stages.read_stamp(run_dir, "html")["key"] == wanted:
        return False
    stamp.unlink(missing_ok=True)
    build_html(run_dir)
    write_json(stamp, {"stage": "html", "key": wanted, "artefacts": {}})
    return True


def epoch() -> int:
    text = os.environ.get("SOURCE_DATE_EPOCH") or str(pack.EPOCH)
    if not text.isdigit():
        raise ParameterError(
            f"SOURCE_DATE_EPOCH = {text!r} is not a whole number of seconds: give one, such as {pack.EPOCH}"
        )
    return int(text)


def verify_corpus(project: Project, params: dict, options) -> None:
    """Makes the corpus again from its parameters and compares it with the run's; RuntimeError names
    what differs."""
    options.target = "data"
    run_dir = run(project, params, options)
    with tempfile.TemporaryDirectory() as fresh:
        runner.run_stage(project, "01-data", params, Path(fresh))
        found = idempotence.compare(run_dir, Path(fresh), only=idempotence.CORPUS)
    bad = [*found["differ"], *found["missing"]]
    evidence.write(
        project,
        "verify-corpus",
        not bad,
        run=run_dir.name,
        compared=len(found["equal"]),
        differ=bad,
    )
    if bad:
        raise RuntimeError(
            f"the corpus of {project.relative(run_dir)} is not what its parameters make: {', '.join(bad)}"
        )
    print(
        f"corpus verified: {len(found['equal'])} files of {project.relative(run_dir)} made again, equal to the byte"
    )


def test_idem(project: Project, params: dict, options) -> None:
    """Runs everything at the quick size twice into fresh folders and compares; RuntimeError names
    what differs."""
    folders = []
    with tempfile.TemporaryDirectory() as fresh:
        for name in ("first", "second"):
            options.target, options.into = "report", Path(fresh) / name
            folders.append(run(project, resolve(project.notebooks), options))
        found = idempotence.compare(*folders)
    bad = [*found["differ"], *found["missing"]]
    evidence.write(
        project, "test-idem", not bad, equal=len(found["equal"]), varies=found["varies"], differ=bad
    )
    for name in found["varies"]:
        print(f"not compared: {name} ({idempotence.why(name)})")
    if bad:
        raise RuntimeError(f"two equal runs differ in {', '.join(bad)}")
    print(
        f"idempotent: {len(found['equal'])} artefacts equal to the byte, {len(found['varies'])} not compared"
    )


def make_pack(project: Project, params: dict, options) -> None:
    path = pack.pack_run(project, options.into or project.run_dir(params), epoch())
    print(project.relative(path))


def verify(project: Project, params: dict, options) -> None:
    """Checks the run's pack and its checksum file; PackError names what was changed."""
    path = (
        project.root / "dist" / f"{pack.pack_name(options.into or project.run_dir(params))}.tar.gz"
    )
    try:
        count = pack.verify(path)
    except pack.PackError:
        evidence.write(project, "verify", False, pack=path.name)
        raise
    evidence.write(project, "verify", True, pack=path.name, files=count)
    print(f"{project.relative(path)}: {count} files verified")


def publish(project: Project, params: dict, options) -> None:
    """Copies a finished run's page, claims, provenance and hashes to reports/reference/, the
    committed rendering.

    So too its CSVs and executed notebooks, which the page links. README.md, where there is one,
    gets its headline table."""
    run_dir = options.into or project.run_dir(params)
    missing = [name for name in PUBLISHED if not (run_dir / name).is_file()]
    if missing:
        where = f"{project.relative(run_dir)}/{missing[0]}"
        raise FileNotFoundError(f"{where} is missing: run make report PROFILE={params['profile']}")
    target = project.reports / "reference"
    linked = [*run_dir.rglob("*.csv"), *run_dir.glob("*.ipynb")]
    names = [*PUBLISHED, *sorted(p.relative_to(run_dir).as_posix() for p in linked)]
    for path in target.rglob("*"):
        if path.is_file() and path.relative_to(target).as_posix() not in names:
            path.unlink()
    for name in names:
        write_bytes(target / name, (run_dir / name).read_bytes())
    page = project.root / "README.md"
    if page.is_file():
        readme.update(page, target / "claims.json", claims.seed_claims())
    print(f"{project.relative(target)}: {len(names)} files")


def execute_notebooks(project: Project, params: dict, options) -> None:
    """Runs notebooks/ at the quick size and writes their outputs into them, so that a visitor sees
    them executed."""
    options.target = "report"
    params = resolve(project.notebooks)
    run_dir = run(project, params, options)
    for stage in project.stages:
        notebook = nbformat.read(run_dir / f"{stage}.ipynb", as_version=4)
        notebook.cells = [
            c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", ())
        ]
        for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), start=1):
            cell.execution_count = count
            for output in cell.outputs:
                if "execution_count" in output:
                    output["execution_count"] = count
        write_text(project.notebook(stage), nbformat.writes(notebook) + "\n")
    print(
        f"{project.relative(project.notebooks)}: {len(project.stages)} notebooks executed at the quick size"
    )


def record(project: Project, params: dict, options) -> None:
    """The evidence of `make test`, from what pytest and coverage wrote."""
    row = evidence.from_pytest(project, options.junit, options.coverage)
    print(
        f"{row['tests']} tests, {row['failures'] + row['errors']} failed, coverage {row['coverage_percent'] or 0:.1f} %"
    )


TARGETS = {
    "verify-corpus": verify_corpus,
    "test-idem": test_idem,
    "pack": make_pack,
    "verify": verify,
    "publish": publish,
    "notebooks": execute_notebooks,
    "evidence": record,
}

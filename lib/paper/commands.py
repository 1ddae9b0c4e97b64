"""What the make targets do that are not a run: compare, pack, verify, clear."""

import tempfile
from pathlib import Path

import nbformat

from . import evidence, idempotence, pack, runner, variants
from .execution import quiet
from .files import write_text
from .names import short
from .parameters import resolve
from .progress import clock
from .project import Project
from .targets import run


def verify_corpus(project: Project, params: dict, options) -> None:
    """Makes the corpus again from its parameters and compares it with the run's; RuntimeError names
    what differs."""
    run_dir = run(project, params, "data", options.into, options.jobs)
    with tempfile.TemporaryDirectory() as fresh:
        with quiet():
            runner.run_stage(project, project.targets["data"], params, Path(fresh).resolve())
        found = idempotence.compare(run_dir, Path(fresh), only=idempotence.CORPUS)
    bad = [*found["differ"], *found["missing"]]
    about = {"run": run_dir.name, "compared": len(found["equal"]), "differ": bad}
    evidence.write(project, "verify-corpus", not bad, **about)
    where = project.relative(run_dir)
    if bad:
        raise RuntimeError(f"the corpus of {where} is not what its parameters make: {named(bad)}")
    equal = len(found["equal"])
    print(f"corpus verified: {equal} files of {where} made again, equal to the byte")


def test_idem(project: Project, params: dict, options) -> None:
    """Runs everything at the quick size twice into fresh folders and compares; RuntimeError names
    what differs."""
    quick = resolve(project.notebooks)
    with tempfile.TemporaryDirectory() as fresh:
        places = [Path(fresh) / name for name in ("one", "two")]
        folders = [run(project, quick, "report", place, options.jobs) for place in places]
        found = idempotence.compare(*folders)
        reasons = {name: idempotence.why(name, folders[0]) for name in found["varies"]}
    bad, equal = [*found["differ"], *found["missing"]], len(found["equal"])
    evidence.write(project, "test-idem", not bad, equal=equal, varies=found["varies"], differ=bad)
    for name, reason in reasons.items():
        print(f"not compared: {name} ({reason})")
    if bad:
        raise RuntimeError(f"two equal runs differ in {named(bad)}")
    print(f"idempotent: {equal} artefacts equal to the byte, {len(reasons)} not compared")


def named(names: list[str], most: int = 8) -> str:
    """Names in one line; after `most` of them, how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def make_pack(project: Project, params: dict, options) -> None:
    path = pack.pack_run(project, options.into or project.run_dir(params))
    print(project.relative(path))


def verify(project: Project, params: dict, options) -> None:
    """Checks the run's pack and its checksum file; PackError names what was changed."""
    run_dir = options.into or project.run_dir(params)
    path = project.root / "dist" / f"{pack.pack_name(project, run_dir)}.tar.gz"
    about = {"run": run_dir.name, "pack": path.name}
    try:
        count = pack.verify(path)
    except pack.PackError:
        evidence.write(project, "verify", False, **about)
        raise
    fails = pack.one_byte_fails(path)
    evidence.write(project, "verify", fails, **about, files=count, changed_byte_fails=fails)
    print(f"{project.relative(path)}: {count} files verified; one changed byte fails: {fails}")


def execute_notebooks(project: Project, params: dict, options) -> None:
    """Runs notebooks/ at the quick size and writes their outputs into them, so that a visitor sees
    them executed."""
    run_dir = run(project, resolve(project.notebooks), "report", jobs=options.jobs)
    for stage in project.stages:
        notebook = nbformat.read(run_dir / f"{stage}.ipynb", as_version=4)
        given = "injected-parameters"
        notebook.cells = [c for c in notebook.cells if given not in c.metadata.get("tags", ())]
        for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), start=1):
            cell.execution_count = count
            for output in cell.outputs:
                if "execution_count" in output:
                    output["execution_count"] = count
        write_text(project.notebook(stage), nbformat.writes(notebook) + "\n")
    where = project.relative(project.notebooks)
    print(f"{where}: {len(project.stages)} notebooks executed at the quick size")


def record(project: Project, params: dict, options) -> None:
    """The evidence of `make test`, from what pytest and coverage wrote."""
    row = evidence.from_pytest(project, options.junit, options.coverage)
    failed, percent = row["failures"] + row["errors"], row["coverage_percent"] or 0
    print(f"{row['tests']} tests, {failed} failed, coverage {percent:.1f} %")


def cache(project: Project, params: dict, options) -> None:
    """Lists the variants that notebooks opened alone have left, with size and age, and says how to
    delete them; or deletes them."""
    where = project.relative(variants.folder(project))
    if options.clear:
        gone = variants.prune(project, limit=-1)
        freed = sum(variant.nbytes for variant in gone)
        print(f"{where}: {len(gone)} variants deleted, {freed / 2**20:.1f} MiB free")
        return
    found = variants.variants(project)
    for variant in found:
        size, age = f"{variant.nbytes / 2**20:.1f} MiB", clock(variant.age)
        print(f"{short(variant.path.name):<40} {size:>12}  used {age} ago")
    total, limit = sum(variant.nbytes for variant in found), variants.LIMIT_BYTES
    print(
        f"{where}: {len(found)} variants, {total / 2**20:.1f} MiB; the oldest go at "
        f"{limit / 2**30:.0f} GiB, all with python -m paper cache --clear"
    )

"""The grading sheet: what data/rubric.toml asks, with the evidence and the section of each."""

import ast
import re
import tomllib
from pathlib import Path

import pandas as pd

from . import record
from .bars import VERDICTS
from .claims import audited
from .files import sha256
from .numerals import number
from .project import Project
from .revision import commit, git
from .sources import LIB, PACKAGES, file_of, used, used_by

RUBRIC = Path(__file__).resolve().parents[2] / "data" / "rubric.toml"
# what the original's pipeline leaves, as it is called here
LEFT = ("corpus.txt", "tokens.jsonl", "vocab.txt", "model/model.safetensors", "metrics.json")
LEFT += ("bench.csv", "bench_quant.csv")
PLOTS = ("latency.png", "quant.png")
COLUMNS = ("asked", "outcome", "evidence", "section", "commit")
NOT_RUN, SHOWN, LACKING = "not run at this commit", "shown", "not in this run"
NAMED = re.compile(rf'"((?:{"|".join(PACKAGES)})(?:\.\w+)+)"')  # what is imported by its name
PROVED = ("asked", "outcome", "evidence")  # the columns of a gate in the section on provenance
OUTCOMES = ("pass", "fail", NOT_RUN, SHOWN, LACKING)


def history(root: Path) -> dict:
    """{commit, dirty, commits, unnamed, bare}: how many commits lead to this state, how many of
    them carry no message, and how many nothing beyond a subject line."""
    log = git(root, "log", "--format=%x00%s%n%b")
    told = [text.partition("\n") for text in log.split("\0")[1:]]
    return {
        **commit(root),
        "commits": len(told),
        "unnamed": sum(not subject.strip() for subject, _, _ in told),
        "bare": sum(not body.strip() for _, _, body in told),
    }


def rubric(path: Path = RUBRIC) -> list[dict]:
    """What is asked, in order: {asked, gate or chapter, section}."""
    return tomllib.loads(Path(path).read_text(encoding="utf-8"))["row"]


def grading(asked: list[dict], evidence: dict, past: dict, rows: list[dict], run: str):
    """A table of what is asked, its outcome, evidence, section, and the commit of the evidence.

    `evidence` is that of the project's present state, `past` its history, `rows` the claims of the
    run called `run`: evidence about another run is none."""
    table = [_graded(it, evidence, past, rows, run) for it in asked]
    return pd.DataFrame(table, columns=COLUMNS)


def _graded(it: dict, evidence: dict, past: dict, rows: list[dict], run: str) -> dict:
    section = it.get("section") or it["chapter"]
    if "chapter" in it:
        own = [row for row in rows if row["notebook"] == it["chapter"] and not audited(row)]
        found = [row["verdict"] for row in own]
        told = [f"{found.count(v)} {v}" for v in VERDICTS if v in found]
        outcome = SHOWN if found else LACKING
        about = (outcome, f"bars: {', '.join(told)}" if told else "", section, "")
    elif it["gate"] == "history":
        traced = past["commits"] > 0 and not past["unnamed"]
        told = f"{number(past['commits'])} commits, {past['unnamed']} without a message"
        about = ("pass" if traced else "fail", told, section, past["commit"][:12])
    else:
        row = holding(evidence, it["gate"], run)
        made = row and row["commit"][:12] + (" with changes" if row.get("dirty") else "")
        outcome = NOT_RUN if row is None else "pass" if row["passed"] else "fail"
        about = (outcome, details(row) if row else f"make {it['gate']}", section, made or "")
    return dict(zip(COLUMNS, (it["asked"], *about), strict=True))


def proofs(asked: list[dict], evidence: dict, past: dict, run: str) -> pd.DataFrame:
    """What each gate of the sheet found, for the section that the sheet leads to."""
    gates = [it for it in asked if "gate" in it]
    return grading(gates, evidence, past, [], run)[list(PROVED)]


def holding(evidence: dict, gate: str, run: str) -> dict | None:
    """The evidence of a gate, None where there is none, or it is about another run than `run`."""
    row = evidence.get(gate)
    return row if row and row.get("run", run) == run else None


def details(row: dict) -> str:
    """What an evidence row found, in words."""
    differ = len(row.get("differ", ()))
    if row["name"] == "test":
        percent = row["coverage_percent"]
        coverage = (
            "coverage unknown" if percent is None else f"{percent:.1f} % covered, branches included"
        )
        return (
            f"{number(row['tests'])} tests, {row['failures'] + row['errors']} failed, "
            f"{row['skipped']} skipped; {coverage}"
        )
    if row["name"] == "test-idem":
        return (
            f"{row['equal']} artefacts of two runs equal, {differ} differ; "
            f"{len(row['varies'])} that may hold times were not compared"
        )
    if row["name"] == "verify-corpus":
        return (
            f"{row['compared']} files of run {row['run']} made again from seed and salt are equal, "
            f"{differ} differ"
        )
    if not row["passed"]:
        return f"{row['pack']} was changed"
    fails = "; with one byte changed it fails" if row.get("changed_byte_fails") else ""
    return f"{row['pack']}: {row['files']} files match{fails}"


def process(gates: dict, past: dict, run: dict, run_dir: Path, project: Project) -> dict:
    """What the original report says of its own process, looked for in this reproduction, as
    {statement: (answer, note)}; None where there is no evidence of this state of the project."""
    test, idem, packed = (gates.get(name) for name in ("test", "test-idem", "verify"))
    lacking = [name for name in LEFT if not (run_dir / name).is_file()]
    plots = [name for name in PLOTS if not (run_dir / "figures" / name).is_file()]
    reached, modules = modules_reached(project)
    differ, gpu = idem and len(idem["differ"]), bool(run.get("machine", {}).get("gpu"))
    apart = not gpu and len(record.table(run_dir, "tables/gpu-layers.csv"))
    unclean = idem and packed and (not idem["passed"]) + (not packed["passed"])
    return {
        "S1-tests": (test and test["failures"] + test["errors"], ran(test) if test else ""),
        "S1-coverage": (
            test and test["coverage_percent"],
            "Of this library, branches included; the original does not say which kind it measured.",
        ),
        "S7-unit-tests": (
            modules - reached,
            f"A judgement; its countable part: a test reaches {reached} of {modules} modules.",
        ),
        "S5-outputs": (len(lacking), f"Looked for: {', '.join(LEFT)}."),
        "S5-plots": (len(plots), f"Looked for: {', '.join(PLOTS)}."),
        "S5-idempotent": (
            differ,
            f"{idem['equal']} are equal; {len(idem['varies'])} that chapters declare as timed were "
            "not compared."
            if idem
            else "",
        ),
        "S5-package": (
            packed and int(not packed["passed"]),
            f"{packed.get('files', 0)} files match." if packed else "",
        ),
        "S7-discipline": (
            unclean,
            "Fixed thread counts, and integer arithmetic for the corpus, were needed as well.",
        ),
        "S7-logbooks": (
            past["bare"],
            f"Of {number(past['commits'])} commits; {number(past['unnamed'])} have no message.",
        ),
        "S6-cpu": (
            int(gpu),
            "Of this run; appendix A6 was measured apart, on a GPU." if apart else "",
        ),
    }


def ran(test: dict) -> str:
    """How many tests ran, and how many of all were skipped, in words."""
    return f"{number(test['tests'] - test['skipped'])} tests ran, {test['skipped']} were skipped."


def modules_reached(project: Project) -> tuple[int, int]:
    """(modules of the library that the tests' imports and names reach, all its modules)."""
    tests = sorted((project.root / "tests").glob("*.py"))
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in tests)
    queue, seen = [name for tree in trees for name in used(tree, ())], set()
    while queue:
        name = queue.pop()
        path = file_of(name)
        if path is not None and path not in seen:
            seen.add(path)
            queue += [*used_by(path, sha256(path)), *NAMED.findall(path.read_text("utf-8"))]
            queue += [name.rpartition(".")[0]]  # and its package
    return len(seen), len(list(LIB.rglob("*.py")))

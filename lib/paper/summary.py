"""What the report's own chapter reads out of a run: the audit by kind and section, the original
report's own arithmetic, the grading sheet."""

import ast
import math
from pathlib import Path

import pandas as pd

from .claims import AUDIT, OWN, audited, settled
from .files import read_json, sha256
from .findings import findings as findings
from .numerals import number
from .project import Project
from .revision import commit, git
from .sources import LIB, files_of, imports, relative_imports
from .statements import ANSWER_ONLY, KINDS, SLIP, UNEXAMINED

NOT_RUN = "not run at this commit"
GATES = (
    ("verify-corpus", "corpus hash verified"),
    ("verify", "verify clean"),
    ("test", "tests and coverage"),
    ("test-idem", "idempotence"),
)


def read_claims(run: Path) -> list[dict]:
    """The claims of every chapter that has run, in the chapters' order."""
    paths = [Path(run) / "claims" / f"{name}.json" for name in Project.find(run).chapters]
    return [row for path in paths if path.is_file() for row in read_json(path)]


def read(run: Path, name: str) -> dict:
    """An artefact in JSON, {} where the run has none."""
    path = Path(run) / name
    return read_json(path) if path.is_file() else {}


def source_limit(corpus: dict) -> str:
    """What the kind of corpus keeps the results from saying, in a sentence or two."""
    return {
        "language": "The language is synthetic, and its offset, recency and induction mechanisms "
        "favour attention by design: that a transformer beats n-grams there shows that it learns "
        "what is there, not that it would win as clearly on natural text. In exchange its floor "
        "is known.",
        "text": "One text, split by position: style and vocabulary drift between its splits, and "
        "no floor is known, so distances to the best possible cannot be given.",
        "uniform": "Independent uniform words hold nothing to learn: only the cost of not knowing "
        "that can be measured.",
    }.get(corpus.get("kind"), "What it holds is not recorded in this run.")


def counts(rows: list[dict]) -> dict[str, int]:
    """Verdict -> how many of our own bars carry it; every verdict is a key."""
    verdicts = [row["verdict"] for row in rows if not audited(row)]
    return {verdict: verdicts.count(verdict) for verdict in OWN}


def audit_by_kind(rows: list[dict], ledger: dict) -> pd.DataFrame:
    """One row a kind of statement: how many the ledger has, verdicts of this run at the original's
    own setting (of `process` and `future`: none), and those where the question can be answered."""
    found = {row["id"]: row for row in rows if audited(row)}
    table = pd.DataFrame([_counted(said, found.get(id, {})) for id, said in ledger.items()])
    return table.groupby("kind").sum().reindex(KINDS).reset_index()


def _counted(said, row):
    own, answer = (row.get(name, UNEXAMINED) for name in ("verdict", "answer_verdict"))
    at_home, elsewhere = said["kind"] not in ANSWER_ONLY, bool(said["answered_at"])
    return {
        "kind": said["kind"],
        "statements": 1,
        **{v: int(at_home and own == v) for v in AUDIT},
        **{f"answer {v}": int(elsewhere and answer == v) for v in AUDIT if v != SLIP},
    }


def audit_by_section(rows: list[dict], ledger: dict) -> pd.DataFrame:
    """One row a section of the original report: its statements, how many of them are settings,
    which are copied, and the verdict that counts of all others."""
    verdict = {row["id"]: settled(row) for row in rows if audited(row)}
    table = pd.DataFrame(
        [
            {
                "section": "§" + said["section"],
                "statements": 1,
                "settings": int(said["kind"] == "setting"),
                **{
                    v: int(verdict.get(id, UNEXAMINED) == v and said["kind"] != "setting")
                    for v in AUDIT
                },
            }
            for id, said in ledger.items()
        ]
    )
    table = table.groupby("section", sort=False).sum()
    table.loc["all"] = table.sum()
    return table.reset_index()


def own_arithmetic(ledger: dict) -> pd.DataFrame:
    """What follows from the original report's own numbers alone: expression, value, what the report
    prints."""
    v = {id: row["seed_value"] for id, row in ledger.items()}
    base, int8, int4 = v["S1-perplexity"], v["S32-int8-perplexity"], v["S32-int4-perplexity"]
    rows = [
        ("int8 perplexity − FP32 perplexity", round(int8 - base, 2), v["S1-int8-degradation"]),
        ("int4 perplexity − FP32 perplexity", round(int4 - base, 2), v["S1-int4-degradation"]),
        ("baseline implied by the int8 drop", round(int8 - v["S1-int8-degradation"], 2), base),
        ("baseline implied by the int4 drop", round(int4 - v["S1-int4-degradation"], 2), base),
        ("int8 rise in %", round(100 * (int8 / base - 1), 1), v["S32-int8-percent"]),
        ("int4 rise in %", round(100 * (int4 / base - 1), 1), v["S32-int4-percent"]),
        (
            "first loss − last loss",
            round(v["S31-loss-initial"] - v["S31-loss-final"], 2),
            v["S31-improvement"],
        ),
        (
            "loss of the sinusoidal perplexity",
            round(math.log(v["S41-sinusoidal-perplexity"]), 2),
            v["S41-sinusoidal-loss"],
        ),
        (
            "latency ratio of the cache",
            round(v["S33-naive-latency"] / v["S33-cached-latency"], 2),
            v["S33-ratio"],
        ),
        (
            "latency ratio of int8",
            round(v["S34-int8-latency"] / v["S34-fp32-latency"], 1),
            v["S34-slower"],
        ),
        (
            "size ratio of int8",
            round(v["S2-fp32-size"] / v["S34-int8-size"], 2),
            v["S1-int8-compression"],
        ),
        (
            "bytes a parameter, 1.99 MB over ~149K",
            round(v["S2-fp32-size"] * 1e6 / v["S2-parameters"], 1),
            4.0,
        ),
    ]
    table = pd.DataFrame(rows, columns=["what", "follows", "printed"])
    return table.assign(agrees=table["follows"] == table["printed"])


def exempt(package: Path = LIB) -> pd.DataFrame:
    """Every line of the library that coverage is told to leave out: file, line and source."""
    files = {
        path.relative_to(package).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(package.rglob("*.py"))
    }
    found = [
        {"file": name, "line": place, "source": line.strip()}
        for name, text in files.items()
        for place, line in enumerate(text.splitlines(), 1)
        if line.rstrip().endswith("# pragma: " + "no cover")
    ]
    return pd.DataFrame(found, columns=["file", "line", "source"])


def history(root: Path) -> dict:
    """{commit, dirty, commits, unnamed}: how many commits lead to this state and how many of them
    carry no message."""
    lines = git(
        root, "log", "--format=%h %s"
    ).splitlines()  # a commit without a message is its hash alone
    return {
        **commit(root),
        "commits": len(lines),
        "unnamed": sum(not line.partition(" ")[2].strip() for line in lines),
    }


def grading(evidence: dict, past: dict) -> pd.DataFrame:
    """The course's gates, each with its outcome and the commit its evidence was made at."""
    traceable = past["commits"] > 0 and not past["unnamed"]
    rows = [
        {
            "gate": "traceable history",
            "outcome": "pass" if traceable else "fail",
            "evidence": f"{past['commits']} commits, {past['unnamed']} without a message",
            "commit": past["commit"][:12],
        }
    ]
    for name, gate in GATES:
        row = evidence.get(name)
        outcome = NOT_RUN if row is None else "pass" if row["passed"] else "fail"
        rows.append(
            {
                "gate": gate,
                "outcome": outcome,
                "evidence": f"make {name}" if row is None else details(row),
                "commit": "–"
                if row is None
                else row["commit"][:12] + (" with changes" if row.get("dirty") else ""),
            }
        )
    return pd.DataFrame(rows)


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
            f"{len(row['varies'])} hold times and are named"
        )
    if row["name"] == "verify-corpus":
        return f"{row['compared']} files made again from seed and salt are equal, {differ} differ"
    return (
        f"{row['pack']}: {row['files']} files match"
        if row["passed"]
        else f"{row['pack']} was changed"
    )


def modules_reached(project: Project) -> tuple[int, int]:
    """(modules of the library that the tests' imports reach, all its modules)."""
    trees = [
        ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted((project.root / "tests").glob("*.py"))
    ]
    lines = [
        ast.unparse(node)
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    queue = [path for module in imports("\n".join(lines)) for path in files_of(module)]
    seen = set()
    while queue:
        path = queue.pop()
        if path not in seen:
            seen.add(path)
            queue += [
                other
                for module in relative_imports(path, sha256(path))
                for other in files_of(module)
            ]
    return len(seen), len(list(LIB.rglob("*.py")))

"""What the report's own chapter reads out of a run: headline numbers, the abstract, the audit by section, the grading sheet."""

import re
from pathlib import Path

import pandas as pd

from .claims import AUDIT, OWN
from .files import read_json
from .numerals import number
from .project import CHAPTERS, Project
from .provenance import _git, commit
from .stages import PACKAGE, imports, library_files

NOT_RUN = "not run at this commit"
# claim id, what the tile says, the seed report's row it stands beside; the first five that a run holds are shown
HEADLINES = (
    ("test-perplexity", "Test perplexity", "S1-perplexity"),
    ("cache-speedup", "Cache speed-up", "S1-cache-speedup"),
    ("int8-size", "Smaller in int8", "S1-int8-compression"),
    ("int4-size", "Smaller in int4", "S1-int4-compression"),
    ("gap-closed", "Gap to the floor closed", None),
    ("time-per-token", "Time per token", None),
)
GATES = (("verify-corpus", "corpus hash verified"), ("verify", "verify clean"), ("test", "tests and coverage"),
         ("test-idem", "idempotence"))


def read_claims(run: Path) -> list[dict]:
    """The claims of every chapter that has run, in the chapters' order."""
    paths = [Path(run) / "claims" / f"{name}.json" for name in CHAPTERS]
    return [row for path in paths if path.is_file() for row in read_json(path)]


def read(run: Path, name: str) -> dict:
    """An artefact in JSON, {} where the run has none."""
    path = Path(run) / name
    return read_json(path) if path.is_file() else {}


def headlines(rows: list[dict], ledger: dict, limits: dict) -> list[dict]:
    """At most five headline numbers, each the claim of a chapter: what, measured, its limit, the seed report's number.

    `limits` maps a claim id to (limit, what it is). Of the claims cache-speedup-<n> the longest n is taken.
    """
    found = []
    for base, label, seed in HEADLINES:
        lengths = {int(m[1]): row for row in rows if (m := re.fullmatch(rf"{base}-(\d+)", row["id"]))}
        row = lengths[max(lengths)] if lengths else next((row for row in rows if row["id"] == base), None)
        if row:
            limit, what = limits.get(row["id"], (None, None))
            found.append({"claim": row["id"], "label": f"{label}, n = {max(lengths)}" if lengths else label,
                          "value": row["measured"], "unit": row["unit"], "interval": row["interval"], "limit": limit,
                          "limit_label": what, "threshold": row["threshold"], "verdict": row["verdict"],
                          "seed_value": ledger[seed]["seed_value"] if seed in ledger else None})
    return found[:5]


def limits(corpus: dict, time_model: dict) -> dict:
    """The limit of each headline claim: the source's floor, 32 bits over the width, the speed-up that the time model allows."""
    floor = corpus.get("floor_perplexity")
    found = {"int8-size": (4.0, "32 over 8 bits"), "int4-size": (8.0, "32 over 4 bits")}
    if floor:
        found |= {"test-perplexity": (floor, "floor"), "gap-closed": (100.0, "floor")}
    return found | {f"cache-speedup-{n}": (value, "time model") for n, value in time_model.get("predicted_speedup", {}).items()}


def counts(rows: list[dict]) -> dict[str, int]:
    """Verdict -> how many rows carry it; every verdict of the vocabulary is a key."""
    verdicts = [row["verdict"] for row in rows]
    return {verdict: verdicts.count(verdict) for verdict in (*OWN, *AUDIT)}


def abstract(tiles: list[dict], rows: list[dict], corpus: dict, ledger: dict) -> str:
    """The run in a paragraph of Markdown; only what it measured is mentioned."""
    by_base = {re.sub(r"-\d+$", "", tile["claim"]): tile for tile in tiles}
    parts = [f"We train a decoder-only transformer on {_text(corpus)}, decode it with and without a key-value cache, and shrink "
             "it to eight and four bits."]
    if tile := by_base.get("test-perplexity"):
        limit = tile["limit"]
        ratio = number(tile["value"] / limit, 3) if limit else ""
        floor = f", {ratio} times the floor of {number(limit)} that no predictor can pass" if limit else ""
        parts.append(f"Its test perplexity is **{measured(tile)}**{floor}.")
    if tile := by_base.get("gap-closed"):
        parts.append(f"It closes **{measured(tile)}** of the gap between knowing nothing and that floor.")
    if tile := by_base.get("cache-speedup"):
        n, limit = tile["claim"].rsplit("-", 1)[1], tile["limit"]
        share = f", {number(100 * tile['value'] / limit, 2)} % of what the fitted time model allows" if limit else ""
        parts.append(f"A cache makes decoding **{measured(tile)}** faster at {n} tokens{share}.")
    sizes = [f"**{measured(by_base[f'{kind}-size'])}** in {kind}" for kind in ("int8", "int4") if f"{kind}-size" in by_base]
    if sizes:
        parts.append(f"Its weights shrink {' and '.join(sizes)}, counted in bytes with all scales.")
    if tile := by_base.get("time-per-token"):
        parts.append(f"A token takes **{measured(tile)}**.")
    return " ".join(parts + [_verdicts(counts(rows), ledger)])


def _text(corpus: dict) -> str:
    if corpus.get("kind") == "text":
        return f"the text *{corpus.get('name', 'given')}*"
    if corpus.get("kind") == "uniform":
        return "independent uniform words, in which there is nothing to learn"
    return "a synthetic language whose entropy rate is known in closed form"


def measured(tile: dict) -> str:
    """A headline's value with unit and interval, three digits each."""
    low_high = f" [{', '.join(number(float(x), 3) for x in tile['interval'])}]" if tile["interval"] else ""
    return f"{number(float(tile['value']), 3)}{_unit(tile)}{low_high}"


def _unit(tile: dict) -> str:
    return {"": "", "perplexity": "", "×": "×"}.get(tile["unit"], f" {tile['unit']}")


def _verdicts(count: dict, ledger: dict) -> str:
    done, own = sum(count[v] for v in AUDIT), sum(count[v] for v in OWN)
    audit = (f"Of the {len(ledger)} statements in the ledger of the seed report, {done} were examined in this run: "
             f"{count['reproduced']} reproduced, {count['corrected']} corrected, {count['refuted']} refuted.")
    return f"{audit} Of {own} bars of our own, {count['pass']} hold." if own else audit


def audit_by_section(rows: list[dict], ledger: dict) -> pd.DataFrame:
    """One row a section of the seed report: statements in the ledger, verdicts of this run, and how many have none."""
    verdict = {row["id"]: row["verdict"] for row in rows}
    table = pd.DataFrame([{"section": "§" + row["section"], "statements": 1, **{v: int(verdict.get(id) == v) for v in AUDIT},
                           "not measured": int(id not in verdict)} for id, row in ledger.items()])
    table = table.groupby("section", sort=False).sum()
    table.loc["all"] = table.sum()
    return table.reset_index()


def findings(rows: list[dict], ledger: dict, verdict: str) -> pd.DataFrame:
    """What the seed report states and what was found, for the audit rows with this verdict, in the ledger's order."""
    found = {row["id"]: row for row in rows if row["verdict"] == verdict}
    pairs = [(seed, found[id]) for id, seed in ledger.items() if id in found]
    return pd.DataFrame([{"section": "§" + seed["section"], "seed report": seed["statement"],
                          "its value": _cell(seed["seed_value"]), "here": _cell(row["measured"]), "unit": row["unit"],
                          "chapter": row["notebook"]} for seed, row in pairs])


def _cell(value) -> str:
    return value if isinstance(value, str) else number(value)


def own_arithmetic(ledger: dict) -> pd.DataFrame:
    """What follows from the seed report's own numbers alone: expression, value, what the report prints."""
    v = {id: row["seed_value"] for id, row in ledger.items()}
    base, int8, int4 = v["S1-perplexity"], v["S32-int8-perplexity"], v["S32-int4-perplexity"]
    rows = [
        ("int8 perplexity − FP32 perplexity", round(int8 - base, 2), v["S1-int8-degradation"]),
        ("int4 perplexity − FP32 perplexity", round(int4 - base, 2), v["S1-int4-degradation"]),
        ("baseline implied by the int8 drop", round(int8 - v["S1-int8-degradation"], 2), base),
        ("baseline implied by the int4 drop", round(int4 - v["S1-int4-degradation"], 2), base),
        ("int8 rise in %", round(100 * (int8 / base - 1), 1), v["S32-int8-percent"]),
        ("int4 rise in %", round(100 * (int4 / base - 1), 1), v["S32-int4-percent"]),
        ("first loss − last loss", round(v["S31-loss-initial"] - v["S31-loss-final"], 2), v["S31-improvement"]),
        ("latency ratio of the cache", round(v["S33-naive-latency"] / v["S33-cached-latency"], 2), v["S33-ratio"]),
        ("latency ratio of int8", round(v["S34-int8-latency"] / v["S34-fp32-latency"], 1), v["S34-slower"]),
        ("size ratio of int8", round(v["S2-fp32-size"] / v["S34-int8-size"], 2), v["S1-int8-compression"]),
        ("bytes a parameter, 1.99 MB over ~149K", round(v["S2-fp32-size"] * 1e6 / v["S2-parameters"], 1), 4.0),
    ]
    table = pd.DataFrame(rows, columns=["what", "follows", "printed"])
    return table.assign(agrees=table["follows"] == table["printed"])


def history(root: Path) -> dict:
    """{commit, dirty, commits, unnamed}: how many commits lead to this state and how many of them carry no message."""
    lines = _git(root, "log", "--format=%h %s").splitlines()  # a commit without a message is its hash alone
    return {**commit(root), "commits": len(lines), "unnamed": sum(not line.partition(" ")[2].strip() for line in lines)}


def grading(evidence: dict, past: dict) -> pd.DataFrame:
    """The course's gates, each with its outcome and the commit its evidence was made at."""
    traceable = past["commits"] > 0 and not past["unnamed"]
    rows = [{"gate": "traceable history", "outcome": "pass" if traceable else "fail",
             "evidence": f"{past['commits']} commits, {past['unnamed']} without a message", "commit": past["commit"][:12]}]
    for name, gate in GATES:
        row = evidence.get(name)
        outcome = NOT_RUN if row is None else "pass" if row["passed"] else "fail"
        rows.append({"gate": gate, "outcome": outcome, "evidence": f"make {name}" if row is None else details(row),
                     "commit": "–" if row is None else row["commit"][:12] + (" with changes" if row.get("dirty") else "")})
    return pd.DataFrame(rows)


def details(row: dict) -> str:
    """What an evidence row found, in words."""
    differ = len(row.get("differ", ()))
    if row["name"] == "test":
        percent = row["coverage_percent"]
        coverage = "coverage unknown" if percent is None else f"{percent:.1f} % covered, branches included"
        return f"{number(row['tests'])} tests, {row['failures'] + row['errors']} failed, {row['skipped']} skipped; {coverage}"
    if row["name"] == "test-idem":
        return f"{row['equal']} artefacts of two runs equal, {differ} differ; {len(row['varies'])} hold times and are named"
    if row["name"] == "verify-corpus":
        return f"{row['compared']} files made again from seed and salt are equal, {differ} differ"
    return f"{row['pack']}: {row['files']} files match" if row["passed"] else f"{row['pack']} was changed"


def modules_reached(project: Project) -> tuple[int, int]:
    """(modules of the library that the tests' imports reach, all its modules)."""
    every = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    sources = [path.read_text(encoding="utf-8") for path in sorted((project.root / "tests").glob("*.py"))]
    names = {name for source in sources for name in imports(source)}
    hidden = {f"report/{name.split('.')[2]}.py" for name in names if name.startswith("minitransformer.report.")}
    return len(every & (library_files(names).keys() | hidden)), len(every)
